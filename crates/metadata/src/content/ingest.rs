//! The ingests of a namespace: begun, listed, aborted.

use std::time::{Duration, SystemTime};

use berth_content::{ContentStore, Status};
use berth_store::redb::WriteTransaction;
use berth_types::filter::{Fields, Filter};
use berth_types::{Digest, Kind, Result};

use crate::content::Content;
use crate::leases::{self, Resource};
use crate::rows::{CONTENT, INGESTS, IngestRow};
use crate::{Scope, namespaces, schema};

/// How long an ingest without a lease is kept, as in containerd.
pub(super) const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

impl Content<'_> {
    /// How far an ingest is. Blocks on the disk.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn status(&self, reference: &str) -> Result<Status> {
        let row =
            self.0.read(|transaction| INGESTS.get(transaction, self.0.namespace(), reference))?;
        let mut status = self.0.metadata().content.status(&row.backend)?;
        status.reference = reference.to_owned();
        Ok(status)
    }

    /// The ingests that pass `filters`, which know `ref`. Blocks on the disk.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed filter.
    pub fn statuses(&self, filters: &[String]) -> Result<Vec<Status>> {
        let filter = Filter::parse(filters)?;
        let mut rows = Vec::new();
        self.0.read(|transaction| {
            INGESTS.each_of(transaction, self.0.namespace(), |reference, row| {
                rows.push((reference.to_owned(), row.backend));
                Ok(())
            })
        })?;
        let mut found = Vec::new();
        for (reference, backend) in rows {
            match self.0.metadata().content.status(&backend) {
                Ok(status) => found.push(Status { reference, ..status }),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        found.retain(|status| filter.matches(&View(status)));
        Ok(found)
    }

    /// Drops an ingest and its bytes.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn abort(&self, reference: &str) -> Result<()> {
        let (scope, name) = (self.0.clone(), reference.to_owned());
        let row = self
            .0
            .write(move |transaction| {
                let row = INGESTS.get(transaction, scope.namespace(), &name)?;
                end(transaction, &scope, &name)?;
                Ok(row)
            })
            .await?;
        let content = self.0.metadata().content.clone();
        match super::writer::blocking(move || content.abort(&row.backend)).await {
            // One that shares a blob has no bytes of its own.
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            result => result,
        }
    }
}

/// What beginning an ingest found.
pub(super) enum Begun {
    /// The namespace has the blob; the lease keeps it now.
    Exists(Digest),
    /// The ingest's ref in the content store.
    Ingest(String),
}

/// Writes the row of an ingest, new or resumed. `shared` is a blob that the content store has and
/// that the ingest will be.
pub(super) fn begin(
    transaction: &WriteTransaction,
    scope: &Scope,
    reference: &str,
    expected: Option<Digest>,
    shared: bool,
) -> Result<Begun> {
    leases::check(transaction, scope)?;
    let ns = scope.namespace();
    if let Some(digest) = &expected
        && CONTENT.find(transaction, ns, digest.as_str())?.is_some()
    {
        leases::keep(transaction, scope, &Resource::content(digest))?;
        return Ok(Begun::Exists(digest.clone()));
    }
    let mut row = match INGESTS.find(transaction, ns, reference)? {
        Some(row) => row,
        None => IngestRow {
            backend: format!("{ns}/{}/{reference}", schema::next_number(transaction)?),
            ..Default::default()
        },
    };
    row.expected = match expected {
        Some(digest) if shared => digest.as_str().to_owned(),
        _ => String::new(),
    };
    let leased = leases::keep(transaction, scope, &Resource::ingest(reference))?;
    row.expires = (!leased).then(|| (SystemTime::now() + LIFETIME).into());
    namespaces::ensure(transaction, ns)?;
    INGESTS.put(transaction, ns, reference, &row)?;
    Ok(Begun::Ingest(row.backend))
}

/// Removes the row of an ingest, if it is still there.
pub(super) fn end(transaction: &WriteTransaction, scope: &Scope, reference: &str) -> Result<()> {
    if INGESTS.find(transaction, scope.namespace(), reference)?.is_some() {
        INGESTS.delete(transaction, scope.namespace(), reference)?;
    }
    leases::release(transaction, scope, &Resource::ingest(reference))
}

/// The size of the blob that an ingest may share: it is there, and has the expected size if one
/// is given.
pub(super) fn sharable(content: &ContentStore, digest: &Digest, size: u64) -> Result<Option<u64>> {
    match content.info(digest) {
        Ok(info) if size == 0 || size == info.size => Ok(Some(info.size)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An ingest as filters see it.
struct View<'a>(&'a Status);

impl Fields for View<'_> {
    fn field(&self, path: &[String]) -> Option<&str> {
        (path.first()? == "ref").then_some(&self.0.reference)
    }
}
