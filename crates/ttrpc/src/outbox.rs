//! The writing half of a connection: a task that owns it, and a queue in front.
//!
//! With a task as the only writer, a caller that gives up in the middle of a call can't leave half
//! a frame behind.

use berth_types::{Error, Result};
use tokio::sync::mpsc;

use crate::socket::WriteHalf;

/// Frames that wait for the writer; beyond that, senders wait.
const QUEUE: usize = 8;

/// The queue's near end. The writer ends, and closes its half, when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Outbox(mpsc::Sender<Vec<u8>>);

/// A place in the queue.
pub(crate) struct Place<'a>(mpsc::Permit<'a, Vec<u8>>);

impl Outbox {
    /// Starts the writer of `half`. Once `left` is over it waits no more for the peer to read: the
    /// peer may be waiting for us in the same way. The returned handle stops it at once.
    pub(crate) fn start(
        half: WriteHalf,
        left: impl Future + Send + 'static,
    ) -> (Self, tokio::task::AbortHandle) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(write(half, receiver, left));
        (Self(sender), writer.abort_handle())
    }

    /// Waits until there is room for one frame. Dropping the future takes nothing.
    pub(crate) async fn place(&self) -> Result<Place<'_>> {
        self.0.reserve().await.map(Place).map_err(|_| closed())
    }

    /// Queues a frame.
    pub(crate) async fn send(&self, frame: Vec<u8>) -> Result<()> {
        self.place().await?.put(frame);
        Ok(())
    }

    /// Returns once nothing can be sent any more.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Place<'_> {
    pub(crate) fn put(self, frame: Vec<u8>) {
        self.0.send(frame);
    }
}

/// The failure of whatever was under way when the connection ended.
pub(crate) fn closed() -> Error {
    Error::unavailable("ttrpc connection closed by the other side")
}

async fn write(half: WriteHalf, mut frames: mpsc::Receiver<Vec<u8>>, left: impl Future) {
    let mut left = std::pin::pin!(left);
    while let Some(frame) = frames.recv().await {
        tokio::select! {
            // What there is room for is written in any case.
            biased;
            written = half.write_all(&frame) => if written.is_err() {
                // The reader of the same connection meets the failure too, and reports it.
                return;
            },
            _ = &mut left => return,
        }
    }
}
