//! The writer thread: takes what is queued into one transaction, commits it, answers everyone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use berth_types::{Error, Kind, Result, ResultExt};
use redb::WriteTransaction;
use tokio::sync::oneshot;

use crate::Durability;
use crate::database::Database;
use crate::error::DbResultExt;

/// The most operations in one transaction, which bounds how long the first one waits.
const BATCH: usize = 256;
/// How long a buffered write may stay off the disk.
const FLUSH: Duration = Duration::from_secs(1);

/// The handle of the thread. Dropping it ends the thread after what is queued.
pub(crate) struct Writer {
    // `None` only while it is being dropped.
    queue: Option<Sender<Queued>>,
    thread: Option<JoinHandle<()>>,
    commits: Arc<AtomicU64>,
}

/// What an operation is granted.
#[derive(Clone, Copy)]
pub(crate) struct Class {
    pub(crate) durability: Durability,
    /// Whether it may use the room that is kept for removals.
    pub(crate) may_use_reserve: bool,
}

struct Queued {
    class: Class,
    operation: Box<dyn Operation>,
}

impl Writer {
    pub(crate) fn spawn(database: Arc<Database>) -> Result<Self> {
        let (queue, queued) = channel();
        let commits = Arc::new(AtomicU64::new(0));
        let run = Thread { database, queued, commits: commits.clone(), unsynced: None };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || run.run())
            .context(|| "start the thread of the database")?;
        Ok(Self { queue: Some(queue), thread: Some(thread), commits })
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        class: Class,
        operation: impl FnOnce(&WriteTransaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let gone = || Error::internal("the thread of the database ended");
        let (answer, answered) = oneshot::channel();
        let operation = Box::new(Pending { operation: Some(operation), result: None, answer });
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(Queued { class, operation }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            // An operation may have held the last clone of the store: the thread can't join itself.
            && thread.thread().id() != std::thread::current().id()
        {
            // It catches the panics of operations and has none of its own to report.
            let _ = thread.join();
        }
    }
}

struct Thread {
    database: Arc<Database>,
    queued: Receiver<Queued>,
    commits: Arc<AtomicU64>,
    /// When the oldest commit that is not on the disk was made.
    unsynced: Option<Instant>,
}

impl Thread {
    fn run(mut self) {
        while let Some(first) = self.next() {
            let Some(first) = first else {
                self.flush();
                continue;
            };
            let mut batch = vec![first];
            batch.extend(self.queued.try_iter().take(BATCH - 1));
            while !batch.is_empty() {
                batch = self.commit(batch);
            }
        }
        self.flush();
    }

    /// Waits for an operation; `Some(None)` when it is time to flush, `None` at the end.
    fn next(&self) -> Option<Option<Queued>> {
        let Some(since) = self.unsynced else {
            return self.queued.recv().ok().map(Some);
        };
        match self.queued.recv_timeout(FLUSH.saturating_sub(since.elapsed())) {
            Ok(queued) => Some(Some(queued)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Runs `batch` in one transaction and answers those that ran; returns those that did not,
    /// because one before them spoilt the transaction.
    fn commit(&mut self, batch: Vec<Queued>) -> Vec<Queued> {
        let (batch, is_full) = self.admit(batch);
        if batch.is_empty() {
            return batch;
        }
        let is_tight = self.database.with(|opened| Ok(opened.room.is_tight())).unwrap_or(false);
        if is_tight {
            // A transaction that fails takes with it what is not on the disk.
            self.flush();
        }
        let mut durability = match self.unsynced {
            Some(since) if since.elapsed() >= FLUSH => Durability::Synced,
            // Pages that are freed are used again only after a commit to the disk.
            _ if is_full || is_tight => Durability::Synced,
            _ => Durability::Buffered,
        };
        let guarded = !batch.iter().any(|queued| queued.class.may_use_reserve);
        let mut waiting = batch.into_iter();
        let mut ran = Vec::new();
        let committed = self.transaction(guarded, |transaction| {
            for mut queued in waiting.by_ref() {
                let whole = queued.operation.run(transaction);
                durability = durability.max(queued.class.durability);
                ran.push(queued.operation);
                if !whole {
                    return Err(Error::aborted(
                        "another operation failed in the same transaction: try again",
                    ));
                }
            }
            Ok(durability)
        });
        if committed.as_ref().is_err_and(|error| error.kind() != Kind::Aborted) {
            // The database failed, and would fail for those that did not run as well.
            ran.extend(waiting.by_ref().map(|queued| queued.operation));
        }
        for operation in ran {
            operation.answer(committed.clone());
        }
        waiting.collect()
    }

    /// Those of `batch` that may run. On a full disk the others are refused: says whether it is.
    fn admit(&self, batch: Vec<Queued>) -> (Vec<Queued>, bool) {
        // A database that can't be opened is the transaction's to report.
        if self.database.with(|opened| Ok(opened.room.is_whole())).unwrap_or(true) {
            return (batch, false);
        }
        let (admitted, refused): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|queued| queued.class.may_use_reserve);
        for queued in refused {
            queued.operation.answer(Err(full()));
        }
        (admitted, true)
    }

    /// One transaction around `fill`, which says how durable it must be, or with `Aborted` that
    /// the transaction is spoilt and the database is not. A guarded one leaves the reserve alone.
    fn transaction(
        &mut self,
        guarded: bool,
        fill: impl FnOnce(&WriteTransaction) -> Result<Durability>,
    ) -> Result<()> {
        let result = self.database.with(|opened| {
            let write = || {
                let mut transaction = opened.database.begin_write().db()?;
                let durability = fill(&transaction)?;
                if durability == Durability::Buffered {
                    transaction.set_durability(redb::Durability::None).db()?;
                }
                transaction.commit().db()?;
                Ok(durability)
            };
            opened.room.guard(guarded, write)
        });
        match result {
            Ok(durability) => self.committed(durability),
            Err(error) if error.kind() == Kind::Aborted => return Err(error),
            Err(error) => {
                tracing::error!(%error, "the database failed in a transaction");
                self.database.close();
                self.unsynced = None;
                return Err(error);
            }
        }
        Ok(())
    }

    fn committed(&mut self, durability: Durability) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.unsynced = match durability {
            Durability::Synced => None,
            Durability::Buffered => self.unsynced.or_else(|| Some(Instant::now())),
        };
    }

    fn flush(&mut self) {
        if self.unsynced.is_some() {
            // A failure is in the log, and nobody waits for an answer.
            let _ = self.transaction(false, |_| Ok(Durability::Synced));
        }
    }
}

fn full() -> Error {
    Error::resource_exhausted(
        "No space left on device for the database, so that only removals work: remove images or \
         containers, or make room on its disk otherwise",
    )
}

/// An operation with its answer, without its types.
trait Operation: Send {
    /// Runs it. False says that it may have stopped between two writes.
    fn run(&mut self, transaction: &WriteTransaction) -> bool;
    /// Answers with the operation's own result if `committed`, and when it failed by itself.
    fn answer(self: Box<Self>, committed: Result<()>);
}

struct Pending<T, F> {
    operation: Option<F>,
    result: Option<Result<T>>,
    answer: oneshot::Sender<Result<T>>,
}

impl<T, F> Operation for Pending<T, F>
where
    T: Send,
    F: FnOnce(&WriteTransaction) -> Result<T> + Send,
{
    fn run(&mut self, transaction: &WriteTransaction) -> bool {
        let Some(operation) = self.operation.take() else { return true };
        let result = catch_unwind(AssertUnwindSafe(|| operation(transaction)));
        let panicked = result.is_err();
        let result = result.unwrap_or_else(|panic| Err(from_panic(&*panic)));
        let whole = !panicked && !result.as_ref().is_err_and(|e| is_of_the_database(e.kind()));
        self.result = Some(result);
        whole
    }

    fn answer(self: Box<Self>, committed: Result<()>) {
        let answer = match (self.result, committed) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(Error::internal("the operation did not run")),
        };
        // The caller may be gone; the operation was the store's.
        let _ = self.answer.send(answer);
    }
}

/// Kinds with which reading or decoding a row fails, perhaps between two writes of an operation.
/// (After an I/O failure redb refuses the commit by itself.)
fn is_of_the_database(kind: Kind) -> bool {
    matches!(kind, Kind::Internal | Kind::DataLoss)
}

fn from_panic(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    Error::internal(format!("a database operation panicked: {text}"))
}
