//! The tables of the daemon's database, all of them.
//!
//! Owners create their own tables; this is the map of the file. [`DRAWING`] is what a reader of a
//! damaged file looks at; a test of the crate `engine`, which has the last tables, compares it with
//! those that are really there.

use berth_store::redb::{ReadableTable, TableDefinition, WriteTransaction};
use berth_store::{DbResultExt, Durability, Store};
use berth_types::Result;

/// The tree of tables: name, key → value, meaning. Values are protobuf messages unless said
/// otherwise; a namespace is always the first part of its rows' keys, so that it is one range.
pub const DRAWING: &str = "\
berth.db
├── schema             text → number                      version of this layout
├── namespaces         namespace → services.namespaces.v1.Namespace
├── images             namespace, name → services.images.v1.Image
├── containers         namespace, id → services.containers.v1.Container
├── content            namespace, digest → services.content.v1.Info   which blobs it may see
├── ingests            namespace, ref → IngestRow         its name in the content store
├── leases             namespace, id → services.leases.v1.Lease
├── lease_resources    namespace, lease, type, id → ()    what a lease keeps
├── sandboxes          namespace, id → types.Sandbox
├── sequence           text → number                      the last number given out
│                      of crate snapshotter, for each NAME:
├── snapshots/NAME                 namespace/key → record (JSON)
├── snapshots/NAME/children        parent, child → ()
│                      of crate engine:
├── engine_containers  namespace, id → Row                what it knows beside the record
└── engine_names       namespace, name → id
";

/// Rows of a namespace: (namespace, id) → an encoded message.
pub(crate) type Rows = TableDefinition<'static, (&'static str, &'static str), &'static [u8]>;

pub(crate) const NAMESPACES: TableDefinition<&str, &[u8]> = TableDefinition::new("namespaces");
pub(crate) const IMAGES: Rows = TableDefinition::new("images");
pub(crate) const CONTAINERS: Rows = TableDefinition::new("containers");
pub(crate) const CONTENT: Rows = TableDefinition::new("content");
pub(crate) const INGESTS: Rows = TableDefinition::new("ingests");
pub(crate) const LEASES: Rows = TableDefinition::new("leases");
pub(crate) const SANDBOXES: Rows = TableDefinition::new("sandboxes");
pub(crate) const LEASE_RESOURCES: TableDefinition<(&str, &str, &str, &str), ()> =
    TableDefinition::new("lease_resources");
pub(crate) const SEQUENCE: TableDefinition<&str, u64> = TableDefinition::new("sequence");

/// Makes the tables that are not there, so that readers find all of them: on the disk, because a
/// disk that fills up takes back what is not. Nor must a full one keep the daemon from starting.
pub(crate) async fn create(store: &Store) -> Result<()> {
    store.write_from_reserve(Durability::Synced, create_in).await
}

fn create_in(transaction: &WriteTransaction) -> Result<()> {
    transaction.open_table(NAMESPACES).db()?;
    for rows in [IMAGES, CONTAINERS, CONTENT, INGESTS, LEASES, SANDBOXES] {
        transaction.open_table(rows).db()?;
    }
    transaction.open_table(LEASE_RESOURCES).db()?;
    transaction.open_table(SEQUENCE).db()?;
    Ok(())
}

/// The next number, never given out before.
pub(crate) fn next_number(transaction: &WriteTransaction) -> Result<u64> {
    let mut sequence = transaction.open_table(SEQUENCE).db()?;
    let last = sequence.get("last").db()?.map_or(0, |last| last.value());
    sequence.insert("last", last + 1).db()?;
    Ok(last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_are_given_out_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("berth.db")).unwrap();
        let first = store.write(Durability::Buffered, next_number).await.unwrap();
        let second = store.write(Durability::Buffered, next_number).await.unwrap();
        assert!(second > first);
    }
}
