//! Telling the daemon what happens: events are queued and forwarded in their order, over ttrpc.
//! While the daemon is away they wait; nothing in the shim ever waits for them but its own end.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use berth_proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use berth_proto::containerd::types::Envelope;
use berth_ttrpc::{Client, Options};
use berth_types::{Kind, Result};
use prost::{Message, Name};
use prost_types::Any;
use tokio::sync::Notify;

/// How many events wait at most. Beyond that the oldest is lost, but the one that is under way.
const QUEUE_MAX: usize = 10_000;
/// How long the daemon may take over one event.
const DELIVERY: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next event.
const LINGER: Duration = Duration::from_secs(1);
/// The longest pause between two attempts.
const PATIENCE: Duration = Duration::from_secs(5);

/// The queue of one container's events.
pub(crate) struct Events {
    namespace: String,
    queue: Mutex<VecDeque<ForwardRequest>>,
    changed: Notify,
}

impl Events {
    pub(crate) fn new(namespace: String) -> Self {
        Self { namespace, queue: Mutex::default(), changed: Notify::new() }
    }

    /// The tenant.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Queues `event`.
    pub(crate) fn push<M: Message + Name>(&self, topic: &str, event: &M) {
        let envelope = Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(Any { type_url: M::full_name(), value: event.encode_to_vec() }),
        };
        let mut queue = self.lock();
        if queue.len() == QUEUE_MAX {
            queue.remove(1);
            tracing::warn!("the daemon has been away for so long that an event was lost");
        }
        queue.push_back(ForwardRequest { envelope: Some(envelope) });
        drop(queue);
        self.changed.notify_waiters();
    }

    /// Forwards events to the daemon's ttrpc socket at `address`, for ever.
    pub(crate) async fn run(&self, address: &Path) {
        let mut pause = Duration::from_millis(50);
        loop {
            self.filled().await;
            match self.forward(address).await {
                Ok(()) => pause = Duration::from_millis(50),
                Err(error) => {
                    tracing::debug!("events wait for the daemon: {error}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PATIENCE);
                }
            }
        }
    }

    /// Returns once nothing waits any more.
    pub(crate) async fn flushed(&self) {
        self.until(VecDeque::is_empty).await;
    }

    async fn filled(&self) {
        self.until(|queue| !queue.is_empty()).await;
    }

    async fn until(&self, condition: impl Fn(&VecDeque<ForwardRequest>) -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Forwards over one connection, until there has been nothing to forward for a while.
    async fn forward(&self, address: &Path) -> Result<()> {
        let client = Client::connect(address).await?;
        let service = "containerd.services.events.ttrpc.v1.Events";
        let options = Options {
            timeout: Some(DELIVERY),
            metadata: vec![("containerd-namespace-ttrpc".to_owned(), self.namespace.clone())],
        };
        while tokio::time::timeout(LINGER, self.filled()).await.is_ok() {
            let Some(request) = self.lock().front().cloned() else { continue };
            match client.call::<_, ()>(service, "Forward", &request, &options).await {
                Err(error) if transient(error.kind()) => return Err(error),
                // Another attempt would get the same answer.
                Err(error) => tracing::warn!("the daemon refused an event: {error}"),
                Ok(()) => {}
            }
            self.lock().pop_front();
            self.changed.notify_waiters();
        }
        Ok(())
    }

    /// Every change is one step, so that a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, VecDeque<ForwardRequest>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn transient(kind: Kind) -> bool {
    matches!(kind, Kind::Unavailable | Kind::DeadlineExceeded)
}
