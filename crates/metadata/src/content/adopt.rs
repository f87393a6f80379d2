//! Ingests that have lost their rows.

use std::time::SystemTime;

use berth_content::ContentStore;
use berth_store::{Durability, Store};
use berth_types::Result;

use super::ingest::LIFETIME;
use super::writer::blocking;
use crate::namespaces;
use crate::rows::{INGESTS, IngestRow};

/// Gives ingests without a row one: a crash takes the rows of its last second, and the bytes that
/// came with them are worth going on with. They are kept as ingests without a lease are. For the
/// start, before there are writers.
///
/// # Errors
/// Those of database and disk.
pub(crate) async fn adopt(store: &Store, content: &ContentStore) -> Result<()> {
    let content = content.clone();
    let there = blocking(move || content.statuses(|_| true)).await?;
    if there.is_empty() {
        return Ok(());
    }
    let adopt = move |transaction: &berth_store::redb::WriteTransaction| {
        for backend in there.into_iter().map(|status| status.reference) {
            let Some((ns, reference)) = owner(&backend) else { continue };
            if INGESTS.find(transaction, ns, reference)?.is_some() {
                continue;
            }
            namespaces::ensure(transaction, ns)?;
            let expires = Some((SystemTime::now() + LIFETIME).into());
            let row = IngestRow { backend: backend.clone(), expires, ..Default::default() };
            INGESTS.put(transaction, ns, reference, &row)?;
        }
        Ok(())
    };
    store.write_from_reserve(Durability::Buffered, adopt).await
}

/// Namespace and ref of what [`begin`](super::ingest::begin) named `NAMESPACE/NUMBER/REF`.
fn owner(backend: &str) -> Option<(&str, &str)> {
    let (ns, rest) = backend.split_once('/')?;
    let (number, reference) = rest.split_once('/')?;
    number.parse::<u64>().ok().map(|_| (ns, reference))
}
