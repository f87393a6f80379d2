//! The engine's tables: what it knows of a container beyond containerd's record.
//!
//! ```text
//! engine_containers   namespace, id → Row
//! engine_names        namespace, name → id
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use berth_metadata::{Companion, containers};
use berth_proto::berth::v1::ContainerOptions;
use berth_proto::containerd::services::containers::v1::Container;
use berth_store::redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use berth_store::{DbResultExt, Durability, Store};
use berth_types::{Error, Result};
use prost::Message;
use prost_types::Timestamp;

const ROWS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("engine_containers");
const NAMES: TableDefinition<(&str, &str), &str> = TableDefinition::new("engine_names");

/// What the engine knows of a container. While it has a task, the task tells its state.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Row {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// As they were asked for, with the name that was chosen.
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<ContainerOptions>,
    /// The digest of the image's config.
    #[prost(string, tag = "3")]
    pub(crate) image_id: String,
    /// What runs.
    #[prost(string, repeated, tag = "4")]
    pub(crate) command: Vec<String>,
    /// The signal that asks it to end.
    #[prost(int32, tag = "5")]
    pub(crate) stop_signal: i32,
    /// Its input ends when the first client leaves that is attached to it.
    #[prost(bool, tag = "6")]
    pub(crate) stdin_once: bool,
    /// The image's labels and those that were asked for.
    #[prost(map = "string, string", tag = "7")]
    pub(crate) labels: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub(crate) created_at: Option<Timestamp>,
    /// Of the last run; absent when there was none.
    #[prost(message, optional, tag = "9")]
    pub(crate) started_at: Option<Timestamp>,
    /// Absent while that run goes on.
    #[prost(message, optional, tag = "10")]
    pub(crate) finished_at: Option<Timestamp>,
    #[prost(uint32, tag = "11")]
    pub(crate) exit_code: u32,
    #[prost(bool, tag = "12")]
    pub(crate) oom_killed: bool,
}

impl Row {
    /// Whether the container goes when it ends.
    pub(crate) fn is_temporary(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.remove)
    }

    /// What a change of the container is written with: temporary ones need not survive a crash.
    pub(crate) fn durability(&self) -> Durability {
        if self.is_temporary() { Durability::Buffered } else { Durability::Synced }
    }

    /// Whether a run has begun whose end is not written.
    pub(crate) fn is_running(&self) -> bool {
        self.started_at.is_some() && self.finished_at.is_none()
    }
}

/// Makes the tables that are not there, so that readers find them: on the disk, because a disk
/// that fills up takes back what is not.
pub(crate) async fn create(store: &Store) -> Result<()> {
    store
        .write_from_reserve(Durability::Synced, |transaction| {
            transaction.open_table(ROWS).db()?;
            transaction.open_table(NAMES).db()?;
            Ok(())
        })
        .await
}

/// Deletes the engine's rows about a container in the transaction that deletes the container.
pub fn companion() -> Companion {
    Arc::new(|transaction, namespace, id| {
        let removed = match transaction.open_table(ROWS).db()?.remove((namespace, id)).db()? {
            Some(row) => decode(id, row.value())?,
            None => return Ok(()),
        };
        transaction.open_table(NAMES).db()?.remove((namespace, removed.name.as_str())).db()?;
        Ok(())
    })
}

/// Writes a new container: its record, its row, and the first of `names` that is free as its name.
///
/// # Errors
/// `AlreadyExists`, in Docker's words, when all names are taken; those of
/// [`containers::insert`].
pub(crate) fn insert(
    transaction: &WriteTransaction,
    namespace: &str,
    record: Container,
    mut row: Row,
    names: Vec<String>,
) -> Result<(Container, Row)> {
    row.name = free_name(transaction, namespace, names)?;
    if let Some(options) = &mut row.options {
        options.name.clone_from(&row.name);
    }
    let record = containers::insert(transaction, namespace, record)?;
    row.created_at = record.created_at;
    // One that is to run at once was made first.
    row.started_at = row.started_at.and(record.created_at);
    let mut table = transaction.open_table(NAMES).db()?;
    table.insert((namespace, row.name.as_str()), record.id.as_str()).db()?;
    put(transaction, namespace, &record.id, &row)?;
    Ok((record, row))
}

/// Gives a container the first of `names` that is free; returns its row as it then is, if there is
/// one.
///
/// # Errors
/// `AlreadyExists`, in Docker's words, when all names are taken; those of the database.
pub(crate) fn rename(
    transaction: &WriteTransaction,
    namespace: &str,
    id: &str,
    names: Vec<String>,
) -> Result<Option<Row>> {
    let name = free_name(transaction, namespace, names)?;
    let mut before = String::new();
    let renamed = change(transaction, namespace, id, |row| {
        before = std::mem::replace(&mut row.name, name.clone());
        if let Some(options) = &mut row.options {
            options.name.clone_from(&name);
        }
    })?;
    if renamed.is_some() {
        let mut table = transaction.open_table(NAMES).db()?;
        table.remove((namespace, before.as_str())).db()?;
        table.insert((namespace, name.as_str()), id).db()?;
    }
    Ok(renamed)
}

fn free_name(
    transaction: &WriteTransaction,
    namespace: &str,
    names: Vec<String>,
) -> Result<String> {
    let table = transaction.open_table(NAMES).db()?;
    let mut holder = None;
    for name in names {
        match table.get((namespace, name.as_str())).db()? {
            None => return Ok(name),
            Some(id) => holder = Some((name, id.value().to_owned())),
        }
    }
    let (name, id) = holder.unwrap_or_default();
    Err(Error::already_exists(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You \
         have to remove (or rename) that container to be able to reuse that name."
    )))
}

/// Changes the row of a container, if there is one; returns it as it then is.
///
/// # Errors
/// Those of the database.
pub(crate) fn change(
    transaction: &WriteTransaction,
    namespace: &str,
    id: &str,
    change: impl FnOnce(&mut Row),
) -> Result<Option<Row>> {
    let row = {
        let table = transaction.open_table(ROWS).db()?;
        let found = table.get((namespace, id)).db()?;
        found.map(|row| decode(id, row.value())).transpose()?
    };
    let Some(mut row) = row else { return Ok(None) };
    change(&mut row);
    put(transaction, namespace, id, &row)?;
    Ok(Some(row))
}

fn put(transaction: &WriteTransaction, namespace: &str, id: &str, row: &Row) -> Result<()> {
    let encoded = row.encode_to_vec();
    transaction.open_table(ROWS).db()?.insert((namespace, id), encoded.as_slice()).db()?;
    Ok(())
}

/// The row of a container.
pub(crate) fn get(from: &ReadTransaction, namespace: &str, id: &str) -> Result<Option<Row>> {
    let table = from.open_table(ROWS).db()?;
    let row = table.get((namespace, id)).db()?;
    row.map(|row| decode(id, row.value())).transpose()
}

/// The id of the container of this name.
pub(crate) fn named(from: &ReadTransaction, namespace: &str, name: &str) -> Result<Option<String>> {
    let table = from.open_table(NAMES).db()?;
    Ok(table.get((namespace, name)).db()?.map(|id| id.value().to_owned()))
}

/// The rows of a namespace, by id.
pub(crate) fn list(from: &ReadTransaction, namespace: &str) -> Result<HashMap<String, Row>> {
    let after = format!("{namespace}\0");
    let table = from.open_table(ROWS).db()?;
    let mut rows = HashMap::new();
    for row in table.range((namespace, "")..(after.as_str(), "")).db()? {
        let (key, value) = row.db()?;
        let (_, id) = key.value();
        rows.insert(id.to_owned(), decode(id, value.value())?);
    }
    Ok(rows)
}

/// All rows, with their namespaces and ids.
pub(crate) fn all(from: &ReadTransaction) -> Result<Vec<(String, String, Row)>> {
    let table = from.open_table(ROWS).db()?;
    let mut rows = Vec::new();
    for row in table.iter().db()? {
        let (key, value) = row.db()?;
        let (namespace, id) = key.value();
        rows.push((namespace.to_owned(), id.to_owned(), decode(id, value.value())?));
    }
    Ok(rows)
}

fn decode(id: &str, row: &[u8]) -> Result<Row> {
    Row::decode(row).map_err(|error| {
        Error::data_loss(format!(
            "what is kept of container {id} is damaged ({error}): remove it and make it anew"
        ))
    })
}

#[cfg(test)]
mod tests {
    use berth_content::ContentStore;
    use berth_metadata::{Metadata, Scope, schema};
    use berth_proto::containerd::services::containers::v1::container::Runtime;
    use berth_snapshotter::{CommitOptions, Overlay, PrepareOptions, Snapshotter};
    use berth_store::redb::TableHandle;
    use berth_types::Kind;
    use prost_types::Any;

    use super::*;

    struct Fixture {
        store: Store,
        scope: Scope,
        overlay: Arc<Overlay>,
        _directory: tempfile::TempDir,
    }

    async fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("berth.db")).unwrap();
        let content = ContentStore::open(directory.path()).unwrap();
        let overlay =
            Arc::new(Overlay::open(&directory.path().join("overlay"), store.clone()).unwrap());
        let snapshotters: Vec<Arc<dyn Snapshotter>> = vec![overlay.clone()];
        let metadata =
            Metadata::open(store.clone(), content, snapshotters, Some(companion())).await.unwrap();
        create(&store).await.unwrap();
        let scope = metadata.scope("default", None).unwrap();
        Fixture { store, scope, overlay, _directory: directory }
    }

    impl Fixture {
        async fn insert(&self, id: &str, names: &[&str]) -> Result<Row> {
            let record = Container {
                id: id.to_owned(),
                runtime: Some(Runtime { name: "r".into(), options: None }),
                spec: Some(Any::default()),
                ..Default::default()
            };
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let row = Row { options: Some(ContainerOptions::default()), ..Default::default() };
            let write = self.store.write(Durability::Buffered, move |transaction| {
                insert(transaction, "default", record, row, names)
            });
            write.await.map(|(_, row)| row)
        }

        fn named(&self, name: &str) -> Option<String> {
            self.store.read(|rows| named(rows, "default", name)).unwrap()
        }
    }

    #[tokio::test]
    async fn the_drawing_shows_every_table() {
        let fixture = fixture().await;
        let (store, overlay) = (&fixture.store, &fixture.overlay);
        overlay.prepare("a/b", "", PrepareOptions::default()).await.unwrap();
        overlay.commit("a/c", "a/b", CommitOptions::default()).await.unwrap();
        overlay.view("a/d", "a/c", PrepareOptions::default()).await.unwrap();
        let tables: Vec<String> = store
            .read(|transaction| {
                let tables = transaction.list_tables().db()?;
                // Those of each snapshotter are drawn once.
                Ok(tables.map(|table| table.name().replace("overlayfs", "NAME")).collect())
            })
            .unwrap();
        let drawn: Vec<&str> = schema::DRAWING
            .lines()
            .filter(|line| line.starts_with(['├', '└']))
            .filter_map(|line| line.trim_start_matches(['├', '└', '─', ' ']).split(' ').next())
            .collect();
        for table in &tables {
            assert!(drawn.contains(&table.as_str()), "table {table} is not in the drawing");
        }
        assert_eq!(tables.len(), drawn.len(), "the drawing has a table that is not there");
    }

    #[tokio::test]
    async fn the_first_free_name_is_given_and_a_taken_one_refused() {
        let fixture = fixture().await;
        assert_eq!(fixture.insert("a", &["x"]).await.unwrap().name, "x");
        let second = fixture.insert("b", &["x", "y"]).await.unwrap();
        assert_eq!((second.name.as_str(), second.options.unwrap().name.as_str()), ("y", "y"));
        let error = fixture.insert("c", &["y"]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::AlreadyExists);
        let words = "Conflict. The container name \"/y\" is already in use by container \"b\".";
        assert!(error.message().starts_with(words), "{error}");
        assert_eq!(fixture.scope.containers().get("c").unwrap_err().kind(), Kind::NotFound);
    }

    #[tokio::test]
    async fn a_renamed_container_gives_up_its_name() {
        let fixture = fixture().await;
        fixture.insert("a", &["x"]).await.unwrap();
        fixture.insert("b", &["y"]).await.unwrap();
        let rename = |id: &'static str, name: &str| {
            let names = vec![name.to_owned()];
            fixture.store.write(Durability::Buffered, move |transaction| {
                rename(transaction, "default", id, names)
            })
        };
        let taken = rename("a", "y").await.unwrap_err();
        assert_eq!(taken.kind(), Kind::AlreadyExists);
        assert_eq!(rename("a", "z").await.unwrap().unwrap().name, "z");
        assert_eq!((fixture.named("x"), fixture.named("z").as_deref()), (None, Some("a")));
        assert_eq!(rename("nobody", "w").await.unwrap(), None);
        assert_eq!(fixture.named("w"), None);
        fixture.scope.containers().delete("a").await.unwrap();
        assert_eq!(fixture.named("z"), None);
    }

    #[tokio::test]
    async fn rows_go_with_the_record_whoever_deletes_it() {
        let fixture = fixture().await;
        fixture.insert("a", &["x"]).await.unwrap();
        assert_eq!(fixture.named("x").as_deref(), Some("a"));
        fixture.scope.containers().delete("a").await.unwrap();
        assert_eq!(fixture.named("x"), None);
        assert_eq!(fixture.store.read(|rows| get(rows, "default", "a")).unwrap(), None);
        fixture.insert("b", &["x"]).await.unwrap();
    }
}
