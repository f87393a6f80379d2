//! The attached clients of a process: each gets a copy of what it writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_logs::Stream;
use berth_proto::berth::shim::v1::AttachResponse;
use berth_types::Error;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

/// How many pieces of output wait for one client. A piece has at most
/// [`super::output::PIECE`] bytes.
const QUEUE: usize = 16;

/// The clients, and whether there is anything more to come for them.
pub(super) struct Hub {
    clients: Mutex<Vec<Client>>,
    /// How many outputs are open.
    open: watch::Sender<usize>,
}

#[derive(Clone)]
struct Client {
    queue: mpsc::Sender<AttachResponse>,
    lossless: bool,
    cut_off: Arc<AtomicBool>,
}

/// A client's copy of the output.
pub(crate) struct Attached {
    queue: mpsc::Receiver<AttachResponse>,
    cut_off: Arc<AtomicBool>,
}

impl Attached {
    /// The next piece; `None` when all outputs have ended.
    ///
    /// # Errors
    /// ResourceExhausted when this client read too slowly and has been cut off.
    pub(crate) async fn next(&mut self) -> Result<Option<AttachResponse>, Error> {
        match self.queue.recv().await {
            None if self.cut_off.load(Ordering::Relaxed) => Err(Error::resource_exhausted(
                "the client read the output too slowly and was cut off",
            )),
            piece => Ok(piece),
        }
    }
}

impl Hub {
    /// No client, and outputs that are yet to come.
    pub(super) fn new() -> Self {
        Self { clients: Mutex::default(), open: watch::Sender::new(1) }
    }

    /// Adds a client, which misses nothing from now on.
    pub(super) fn attach(&self, lossless: bool) -> Attached {
        let (sender, queue) = mpsc::channel(QUEUE);
        let cut_off = Arc::new(AtomicBool::new(false));
        let mut clients = self.lock();
        // Those that left while nothing was written have not been noticed.
        clients.retain(|client| !client.queue.is_closed());
        if *self.open.borrow() > 0 {
            clients.push(Client { queue: sender, lossless, cut_off: cut_off.clone() });
        }
        Attached { queue, cut_off }
    }

    /// Whether anybody is attached.
    pub(super) fn is_attended(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Gives every client a copy, waiting for those that must miss nothing.
    pub(super) async fn send(&self, stream: Stream, bytes: Bytes) {
        let clients = self.lock().clone();
        let piece = match stream {
            Stream::Stdout => AttachResponse { stdout: bytes, ..Default::default() },
            Stream::Stderr => AttachResponse { stderr: bytes, ..Default::default() },
        };
        let mut gone = false;
        for client in clients {
            gone |= if client.lossless {
                client.queue.send(piece.clone()).await.is_err()
            } else {
                let full = client.queue.try_send(piece.clone()).is_err();
                client.cut_off.fetch_or(full, Ordering::Relaxed);
                full
            };
        }
        if gone {
            self.lock().retain(|client| {
                !client.queue.is_closed() && !client.cut_off.load(Ordering::Relaxed)
            });
        }
    }

    /// There are `count` outputs now.
    pub(super) fn opened(&self, count: usize) {
        self.change(|open| *open = count);
    }

    /// One output has ended.
    pub(super) fn ended(&self) {
        self.change(|open| *open = open.saturating_sub(1));
    }

    /// Returns once all outputs have ended.
    pub(super) async fn over(&self) {
        // The sender lives as long as `self`.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        let mut clients = self.lock();
        self.open.send_modify(change);
        if *self.open.borrow() == 0 {
            *clients = Vec::new();
        }
    }

    /// Every change is one step, so that a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    #[tokio::test]
    async fn every_client_gets_a_copy_until_the_end() {
        let hub = Hub::new();
        let (mut first, mut second) = (hub.attach(true), hub.attach(false));
        hub.opened(2);
        hub.send(Stream::Stdout, "out".into()).await;
        hub.send(Stream::Stderr, "err".into()).await;
        hub.ended();
        hub.ended();
        hub.over().await;
        for client in [&mut first, &mut second] {
            assert_eq!(client.next().await.unwrap().unwrap().stdout, "out");
            assert_eq!(client.next().await.unwrap().unwrap().stderr, "err");
            assert_eq!(client.next().await.unwrap(), None);
        }
        assert_eq!(hub.attach(true).next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn clients_that_left_are_forgotten() {
        let hub = Hub::new();
        for _ in 0..1000 {
            drop(hub.attach(true));
        }
        assert!(hub.lock().len() <= 1);
    }

    #[tokio::test]
    async fn a_slow_client_is_cut_off_and_holds_up_nobody() {
        let hub = Hub::new();
        let mut slow = hub.attach(false);
        for _ in 0..2 * QUEUE {
            hub.send(Stream::Stdout, "x".into()).await;
        }
        for _ in 0..QUEUE {
            assert!(slow.next().await.unwrap().is_some());
        }
        assert_eq!(slow.next().await.unwrap_err().kind(), Kind::ResourceExhausted);
    }

    #[tokio::test]
    async fn a_lossless_client_is_waited_for_until_it_leaves() {
        let hub = Arc::new(Hub::new());
        let client = hub.attach(true);
        let sending = tokio::spawn({
            let hub = hub.clone();
            async move {
                for _ in 0..2 * QUEUE {
                    hub.send(Stream::Stdout, "x".into()).await;
                }
            }
        });
        tokio::task::yield_now().await;
        assert!(!sending.is_finished());
        drop(client);
        sending.await.unwrap();
    }
}
