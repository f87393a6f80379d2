//! One subscriber's backlog.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_types::{Error, Result};
use tokio::sync::Notify;

use crate::Envelope;

/// How far a subscriber may fall behind, in bytes of encoded events.
pub const QUEUE_LIMIT: usize = 64 << 20;

/// Events published and not yet taken.
#[derive(Default)]
pub(crate) struct Queue {
    backlog: Mutex<Backlog>,
    arrived: Notify,
}

#[derive(Default)]
struct Backlog {
    events: VecDeque<(Arc<Envelope>, usize)>,
    bytes: usize,
    overflowed: bool,
}

impl Queue {
    /// Appends an event of `size` bytes, or ends the queue when that exceeds the limit.
    pub(crate) fn push(&self, event: &Arc<Envelope>, size: usize) {
        let mut backlog = self.lock();
        if backlog.overflowed {
            return;
        }
        if backlog.bytes + size > QUEUE_LIMIT {
            // The reader is told that it lost events, so the backlog is of no use to it.
            *backlog = Backlog { overflowed: true, ..Backlog::default() };
        } else {
            backlog.bytes += size;
            backlog.events.push_back((Arc::clone(event), size));
        }
        drop(backlog);
        self.arrived.notify_one();
    }

    /// Waits for the next event. There is one reader.
    pub(crate) async fn pop(&self) -> Result<Arc<Envelope>> {
        loop {
            if let Some(outcome) = self.try_pop() {
                return outcome;
            }
            self.arrived.notified().await;
        }
    }

    fn try_pop(&self) -> Option<Result<Arc<Envelope>>> {
        let mut backlog = self.lock();
        if backlog.overflowed {
            return Some(Err(Error::resource_exhausted(format!(
                "the subscriber fell more than {} MiB behind the events; subscribe again",
                QUEUE_LIMIT >> 20
            ))));
        }
        let (event, size) = backlog.events.pop_front()?;
        backlog.bytes -= size;
        Some(Ok(event))
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        // No code panics while it holds the lock, and the backlog is consistent at every step.
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use berth_types::Kind;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_ends_and_gives_its_memory_back() {
        let queue = Queue::default();
        let event = Arc::new(Envelope::default());
        queue.push(&event, QUEUE_LIMIT);
        assert_eq!(Arc::strong_count(&event), 2);
        queue.push(&event, 1);
        queue.push(&event, 1);
        assert_eq!(Arc::strong_count(&event), 1);
        assert_eq!(queue.pop().await.unwrap_err().kind(), Kind::ResourceExhausted);
        assert_eq!(queue.pop().await.unwrap_err().kind(), Kind::ResourceExhausted);
    }

    #[tokio::test]
    async fn reading_makes_room() {
        let queue = Queue::default();
        let event = Arc::new(Envelope::default());
        for _ in 0..10 {
            queue.push(&event, QUEUE_LIMIT);
            assert!(queue.pop().await.is_ok());
        }
    }
}
