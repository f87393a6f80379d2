//! The way into a process: a queue that a client's FIFO or attached clients fill, and a task that
//! empties it into the process's standard input or terminal.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_types::{Result, ResultExt};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc};

use super::names::Source;
use super::output::PIECE;

/// Pieces that wait for the process; beyond that, clients wait.
const QUEUE: usize = 4;

/// The near end of a process's input.
pub(crate) struct Input {
    /// Gone when no more may be written.
    queue: Mutex<Option<mpsc::Sender<Bytes>>>,
    /// The far end, until there is a process.
    pending: Mutex<Option<mpsc::Receiver<Bytes>>>,
    /// The first client that leaves, or says that it has no more, ends the input.
    once: bool,
    /// CloseIO was called.
    closing: Notify,
}

impl Input {
    pub(super) fn new(source: &Source) -> Self {
        let (sender, receiver) = match source {
            Source::Null => (None, None),
            _ => {
                let (sender, receiver) = mpsc::channel(QUEUE);
                (Some(sender), Some(receiver))
            }
        };
        Self {
            queue: Mutex::new(sender),
            pending: Mutex::new(receiver),
            once: *source == Source::Attached { once: true },
            closing: Notify::new(),
        }
    }

    /// Queues bytes for the process. False when it takes no more, or never took any.
    pub(crate) async fn write(&self, bytes: Bytes) -> bool {
        let queue = lock(&self.queue).clone();
        match queue {
            Some(queue) => queue.send(bytes).await.is_ok(),
            None => false,
        }
    }

    /// A client has no more input. That is the process's end of file where one client is all it
    /// was meant to have.
    pub(crate) fn client_left(&self) {
        if self.once {
            self.end();
        }
    }

    /// CloseIO: what the client has written still arrives, then the process reads its end of file.
    pub(super) fn close(&self, source: &Source) {
        match source {
            Source::Fifo(_) => self.closing.notify_one(),
            _ => self.end(),
        }
    }

    fn end(&self) {
        *lock(&self.queue) = None;
    }

    /// What empties the queue into `target`, for a task of its own; `None` when there is nothing
    /// to come.
    ///
    /// # Errors
    /// When the runtime can't watch the descriptor.
    pub(super) fn writer(
        &self,
        target: OwnedFd,
    ) -> Result<Option<impl Future<Output = ()> + use<>>> {
        let Some(mut queue) = lock(&self.pending).take() else { return Ok(None) };
        let mut target = pipe::Sender::from_owned_fd_unchecked(target)
            .context(|| "watch a process's standard input")?;
        Ok(Some(async move {
            while let Some(bytes) = queue.recv().await {
                // The process may read no more: its clients are then told so by `write`.
                if target.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }))
    }

    /// Copies a client's FIFO into the queue until the client closes it, or CloseIO was called
    /// and it is empty.
    pub(super) async fn copy(&self, fifo: pipe::Receiver) {
        let mut closing = false;
        loop {
            let mut piece = vec![0; PIECE];
            match fifo.try_read(&mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    piece.truncate(length);
                    if !self.write(piece.into()).await {
                        break;
                    }
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && !closing => {}
                Err(_) => break,
            }
            drop(piece);
            tokio::select! {
                biased;
                ready = fifo.readable() => if ready.is_err() { break },
                () = self.closing.notified() => closing = true,
            }
        }
        self.end();
    }
}

/// Every change is one step, so that a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
