//! The embedded database: redb with group commit.
//!
//! One file holds every table of the daemon. Readers run at once, each on the state of the last
//! commit. Writers queue for one thread, which puts the operations that wait into one transaction
//! and answers all of them after one fsync, so that a hundred concurrent clients cost a few
//! commits and not a hundred. Crates that own tables bring their own definitions; this crate
//! knows only the table with the schema's version.

mod database;
mod error;
mod room;
mod schema;
mod writer;

use std::path::Path;
use std::sync::Arc;

use berth_types::Result;
pub use redb;
use redb::ReadableDatabase;

use crate::database::Database;
pub use crate::error::DbResultExt;
use crate::writer::{Class, Writer};

/// When a write is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// When readers see it. It reaches the disk with the next [`Durability::Synced`] write or
    /// within a second, at once while the disk is nearly full; a crash before that takes it back.
    Buffered,
    /// When it is on the disk.
    Synced,
}

/// The database. Clones share it; it is closed when the last one is dropped.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    // Declared first and so dropped first: the thread finishes what is queued.
    writer: Writer,
    database: Arc<Database>,
}

impl Store {
    /// Opens the database at `path`, or makes one with mode 0600. The page cache is small (4 MiB).
    /// After a crash, and when the file was written by an older release, opening brings it up to
    /// date first.
    ///
    /// # Errors
    /// - `FailedPrecondition`: another process has it open, or a newer release wrote it.
    /// - `DataLoss`: a checksum is wrong, or the file is not a database.
    /// - `ResourceExhausted`, `PermissionDenied`, `Internal`: the disk, as in
    ///   [`Error::io`](berth_types::Error::io).
    pub fn open(path: &Path) -> Result<Self> {
        let database = Arc::new(Database::open(path)?);
        let writer = Writer::spawn(database.clone())?;
        Ok(Self(Arc::new(Shared { writer, database })))
    }

    /// Runs `read` on the state of the last commit, which it keeps seeing until it returns,
    /// whatever is written meanwhile. Calls must not be nested.
    ///
    /// # Errors
    /// Those of `read`, and those of the disk.
    pub fn read<T>(&self, read: impl FnOnce(&redb::ReadTransaction) -> Result<T>) -> Result<T> {
        self.0.database.with(|opened| read(&opened.database.begin_read().db()?))
    }

    /// Runs `operation` on the writer thread, in a transaction that it may share with others, and
    /// returns what it returned once that is committed with at least this `durability`.
    /// Operations run in the order of the first polls of their futures. From that poll on the
    /// operation belongs to the store: it goes on when the future is dropped.
    ///
    /// **The contract of an operation**: it checks first and writes then. One that returns `Err`
    /// has written nothing, because its neighbours in the transaction commit all the same. Only a
    /// failure of the database itself may come after a write: after `Internal` and `DataLoss`, and
    /// after an I/O failure, the transaction is not committed. An operation must not block, nor
    /// call the store.
    ///
    /// # Errors
    /// - Those of `operation`.
    /// - `Internal`: `operation` panicked; nothing of it was kept.
    /// - `Aborted`: a neighbour panicked or failed in the middle, so nothing was kept; try again.
    /// - `ResourceExhausted`: the disk is full; nothing was kept.
    /// - `DataLoss` and others when the commit failed; nothing was kept.
    pub async fn write<T: Send + 'static>(
        &self,
        durability: Durability,
        operation: impl FnOnce(&redb::WriteTransaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.0.writer.write(Class { durability, may_use_reserve: false }, operation).await
    }

    /// As [`Store::write`], for what must work on a full disk: operations that remove rows or
    /// note an end. They may use room that the file keeps for them.
    ///
    /// # Errors
    /// Those of [`Store::write`].
    pub async fn write_from_reserve<T: Send + 'static>(
        &self,
        durability: Durability,
        operation: impl FnOnce(&redb::WriteTransaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.0.writer.write(Class { durability, may_use_reserve: true }, operation).await
    }

    /// How many transactions were committed since the store was opened.
    pub fn commits(&self) -> u64 {
        self.0.writer.commits()
    }
}
