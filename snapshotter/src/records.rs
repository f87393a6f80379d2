//! The records of a snapshotter, as tables of the daemon's database.
//!
//! ```text
//! snapshots/NAME            key → record (JSON)
//! snapshots/NAME/children   parent, child → ()
//! ```

use std::time::SystemTime;

use berth_store::redb::{ReadableTable, TableDefinition, WriteTransaction};
use berth_store::{DbResultExt, Durability, Store, redb};
use berth_types::labels::Labels;
use berth_types::{Digest, Error, Result};
use serde::{Deserialize, Serialize};

use crate::contract::{CommitOptions, Info, Kind, Relabel, Usage};

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;
type Children = TableDefinition<'static, (&'static str, &'static str), ()>;

/// A snapshot as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Names the directory.
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) parent: String,
    pub(crate) labels: Labels,
    pub(crate) created: SystemTime,
    pub(crate) updated: SystemTime,
    /// Of committed snapshots.
    pub(crate) usage: Usage,
    /// Of committed snapshots that are images: the digest of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<Digest>,
}

/// What is recorded of a layer when it is committed.
pub struct Commit {
    /// What it takes.
    pub(crate) usage: Usage,
    /// The digest of its image.
    pub(crate) checksum: Option<Digest>,
}

impl Record {
    pub(crate) fn into_info(self, key: &str) -> Info {
        Info {
            kind: self.kind,
            key: key.to_owned(),
            parent: self.parent,
            labels: self.labels,
            created: self.created,
            updated: self.updated,
        }
    }
}

/// The tables of one snapshotter.
#[derive(Clone)]
pub(crate) struct Records {
    store: Store,
    rows: Rows,
    children: Children,
}

impl Records {
    pub(crate) fn new(store: Store, rows: &'static str, children: &'static str) -> Self {
        Self { store, rows: Rows::new(rows), children: Children::new(children) }
    }

    /// The record of `key`.
    pub(crate) fn get(&self, key: &str) -> Result<Record> {
        self.read(|rows| match rows {
            Some(rows) => find(rows, key),
            None => Err(unknown(key)),
        })
    }

    /// The record of `key` and those of its parents, nearest first, in one state of the database.
    pub(crate) fn chain(&self, key: &str) -> Result<Vec<Record>> {
        self.read(|rows| {
            let rows = rows.ok_or_else(|| unknown(key))?;
            let mut chain = vec![find(rows, key)?];
            while let Some(last) = chain.last().filter(|last| !last.parent.is_empty()) {
                let parent = find(rows, &last.parent)?;
                chain.push(parent);
            }
            Ok(chain)
        })
    }

    /// All records whose key starts with `prefix`.
    pub(crate) fn list(&self, prefix: &str) -> Result<Vec<(String, Record)>> {
        self.read(|rows| {
            let mut found = Vec::new();
            let Some(rows) = rows else { return Ok(found) };
            for row in rows.range(prefix..).db()? {
                let (key, record) = row.db()?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_owned(), decode(key.value(), record.value())?));
            }
            Ok(found)
        })
    }

    /// Adds a record, once its directory is there.
    pub(crate) async fn create(
        &self,
        key: &str,
        record: Record,
        durability: Durability,
    ) -> Result<()> {
        let (this, key) = (self.clone(), key.to_owned());
        self.store
            .write(durability, move |transaction| {
                let mut rows = transaction.open_table(this.rows).db()?;
                if rows.get(&*key).db()?.is_some() {
                    return Err(taken(&key));
                }
                if !record.parent.is_empty() {
                    check_parent(&rows, &record.parent)?;
                }
                rows.insert(&*key, &*encode(&record)?).db()?;
                drop(rows);
                this.link(transaction, &record.parent, &key)
            })
            .await
    }

    /// Moves the active record `key` to the committed record `name`.
    pub(crate) async fn commit(
        &self,
        name: &str,
        key: &str,
        made: Commit,
        options: CommitOptions,
    ) -> Result<()> {
        let (this, name, key) = (self.clone(), name.to_owned(), key.to_owned());
        self.store
            .write(Durability::Synced, move |transaction| {
                let mut rows = transaction.open_table(this.rows).db()?;
                let mut record = find(&rows, &key)?;
                let old_parent = record.parent.clone();
                check_commit(&rows, &name, &key, &mut record, options.parent)?;
                let now = SystemTime::now();
                record = Record {
                    kind: Kind::Committed,
                    labels: options.labels,
                    created: now,
                    updated: now,
                    usage: made.usage,
                    checksum: made.checksum,
                    ..record
                };
                rows.remove(&*key).db()?;
                rows.insert(&*name, &*encode(&record)?).db()?;
                drop(rows);
                this.unlink(transaction, &old_parent, &key)?;
                this.link(transaction, &record.parent, &name)
            })
            .await
    }

    /// Changes labels.
    pub(crate) async fn update(&self, key: &str, change: Relabel) -> Result<Record> {
        let (table, key) = (self.rows, key.to_owned());
        self.store
            .write(Durability::Synced, move |transaction| {
                let mut rows = transaction.open_table(table).db()?;
                let mut record = find(&rows, &key)?;
                change(&mut record.labels);
                record.updated = SystemTime::now();
                rows.insert(&*key, &*encode(&record)?).db()?;
                Ok(record)
            })
            .await
    }

    /// Lets the committed record `key` have what the committed record `with` has, which goes.
    /// Returns `key`'s record as it was.
    pub(crate) async fn replace(&self, key: &str, with: &str) -> Result<Record> {
        let (this, key, with) = (self.clone(), key.to_owned(), with.to_owned());
        self.store
            .write(Durability::Synced, move |transaction| {
                let mut rows = transaction.open_table(this.rows).db()?;
                let (old, new) = (find(&rows, &key)?, find(&rows, &with)?);
                let committed = old.kind == Kind::Committed && new.kind == Kind::Committed;
                if !committed || old.parent != new.parent || key == with {
                    return Err(Error::failed_precondition(format!(
                        "snapshot {with:?} can't take the place of {key:?}: it is another layer"
                    )));
                }
                let Record { id, usage, checksum, .. } = new;
                let replaced = Record { id, usage, checksum, ..old.clone() };
                rows.insert(&*key, &*encode(&replaced)?).db()?;
                rows.remove(&*with).db()?;
                drop(rows);
                this.unlink(transaction, &old.parent, &with)?;
                Ok(old)
            })
            .await
    }

    /// Removes a record, before its directory goes.
    pub(crate) async fn remove(&self, key: &str, durability: Durability) -> Result<Record> {
        let (this, key) = (self.clone(), key.to_owned());
        self.store
            .write_from_reserve(durability, move |transaction| {
                let mut rows = transaction.open_table(this.rows).db()?;
                let record = find(&rows, &key)?;
                if this.has_children(transaction, &key)? {
                    return Err(Error::failed_precondition(format!(
                        "snapshot {key:?} has children: remove those first"
                    )));
                }
                rows.remove(&*key).db()?;
                drop(rows);
                this.unlink(transaction, &record.parent, &key)?;
                Ok(record)
            })
            .await
    }

    fn read<T>(
        &self,
        read: impl FnOnce(Option<&redb::ReadOnlyTable<&'static str, &'static [u8]>>) -> Result<T>,
    ) -> Result<T> {
        self.store.read(|transaction| match transaction.open_table(self.rows) {
            Ok(rows) => read(Some(&rows)),
            Err(redb::TableError::TableDoesNotExist(_)) => read(None),
            Err(error) => Err(error).db(),
        })
    }

    fn has_children(&self, transaction: &WriteTransaction, key: &str) -> Result<bool> {
        let children = transaction.open_table(self.children).db()?;
        let mut range = children.range((key, "")..).db()?;
        match range.next() {
            Some(row) => Ok(row.db()?.0.value().0 == key),
            None => Ok(false),
        }
    }

    fn link(&self, transaction: &WriteTransaction, parent: &str, child: &str) -> Result<()> {
        if !parent.is_empty() {
            transaction.open_table(self.children).db()?.insert((parent, child), ()).db()?;
        }
        Ok(())
    }

    fn unlink(&self, transaction: &WriteTransaction, parent: &str, child: &str) -> Result<()> {
        if !parent.is_empty() {
            transaction.open_table(self.children).db()?.remove((parent, child)).db()?;
        }
        Ok(())
    }
}

/// Checks a commit, and names the parent of a record that was prepared without one.
fn check_commit(
    rows: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
    key: &str,
    record: &mut Record,
    parent: Option<String>,
) -> Result<()> {
    if rows.get(name).db()?.is_some() {
        return Err(taken(name));
    }
    if record.kind != Kind::Active {
        return Err(Error::failed_precondition(format!(
            "snapshot {key:?} is not active, so it can't be committed"
        )));
    }
    match parent.filter(|parent| *parent != record.parent) {
        None => Ok(()),
        Some(_) if !record.parent.is_empty() => Err(Error::failed_precondition(format!(
            "snapshot {key:?} has the parent {:?} already",
            record.parent
        ))),
        Some(parent) => {
            check_parent(rows, &parent)?;
            record.parent = parent;
            Ok(())
        }
    }
}

fn check_parent(
    rows: &impl ReadableTable<&'static str, &'static [u8]>,
    parent: &str,
) -> Result<()> {
    if find(rows, parent)?.kind == Kind::Committed {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "snapshot {parent:?} is not committed, so it can't be a parent"
    )))
}

fn find(rows: &impl ReadableTable<&'static str, &'static [u8]>, key: &str) -> Result<Record> {
    match rows.get(key).db()? {
        Some(row) => decode(key, row.value()),
        None => Err(unknown(key)),
    }
}

fn unknown(key: &str) -> Error {
    Error::not_found(format!("snapshot {key:?} does not exist"))
}

fn taken(key: &str) -> Error {
    Error::already_exists(format!("snapshot {key:?} already exists"))
}

fn encode(record: &Record) -> Result<Vec<u8>> {
    serde_json::to_vec(record)
        .map_err(|error| Error::internal(format!("encode a snapshot's record: {error}")))
}

fn decode(key: &str, bytes: &[u8]) -> Result<Record> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::data_loss(format!("the record of snapshot {key:?} is damaged ({error}): remove it"))
    })
}
