//! Publishing and subscribing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use berth_types::filter::Filter;
use berth_types::{Error, Result, id};
use prost::{Message, Name};
use prost_types::Any;

use crate::queue::Queue;
use crate::view::View;
use crate::{Envelope, topic};

/// The topic of processes' ends, which some subscribers can't do without.
const EXIT: &str = "/tasks/exit";

/// The exchange of one daemon. Clones are the same exchange.
#[derive(Clone, Default)]
pub struct Exchange {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    subscribers: Vec<Subscriber>,
    /// Exits for subscribers to come; `None` when they are no longer kept.
    exits: Option<Vec<(Arc<Envelope>, usize)>>,
}

struct Subscriber {
    filter: Filter,
    queue: Arc<Queue>,
}

impl Exchange {
    /// An exchange without subscribers.
    pub fn new() -> Self {
        Self::default()
    }

    /// An exchange of a daemon that has just started, whose subscribers of before are on their way
    /// back: until [`forget_exits`](Self::forget_exits), exits are also given to whoever
    /// subscribes later.
    pub fn keeping_exits() -> Self {
        let exchange = Self::default();
        exchange.lock().exits = Some(Vec::new());
        exchange
    }

    /// Keeps exits no longer: whoever subscribes from now on has not missed any.
    pub fn forget_exits(&self) {
        self.lock().exits = None;
    }

    /// Publishes `event`, as of now. Its type is named as containerd names it: the full protobuf
    /// name without a host before it.
    ///
    /// # Errors
    /// `InvalidArgument` for a namespace or topic that is not well formed.
    pub fn publish<E: Message + Name>(
        &self,
        namespace: &str,
        topic: &str,
        event: &E,
    ) -> Result<()> {
        let event = Any { type_url: E::full_name(), value: event.encode_to_vec() };
        self.publish_any(namespace, topic, event)
    }

    /// Publishes a message whose type is known to its readers alone, as of now.
    ///
    /// # Errors
    /// As [`Exchange::publish`].
    pub fn publish_any(&self, namespace: &str, topic: &str, event: Any) -> Result<()> {
        self.forward(Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: namespace.into(),
            topic: topic.into(),
            event: Some(event),
        })
    }

    /// Publishes what another process made: a shim, or a client that forwards.
    ///
    /// # Errors
    /// `InvalidArgument` for a namespace or topic that is not well formed, or without a time.
    pub fn forward(&self, envelope: Envelope) -> Result<()> {
        id::validate("namespace of an event", &envelope.namespace)?;
        topic::validate(&envelope.topic)?;
        if envelope.timestamp.is_none() {
            return Err(Error::invalid_argument(format!(
                "event {} has no timestamp",
                envelope.topic
            )));
        }
        let size = envelope.encoded_len();
        let envelope = Arc::new(envelope);
        // One lock over the whole round: all subscribers see the events in the same order.
        let mut state = self.lock();
        for subscriber in &state.subscribers {
            subscriber.offer(&envelope, size);
        }
        if let Some(exits) = &mut state.exits
            && envelope.topic == EXIT
        {
            exits.push((envelope, size));
        }
        Ok(())
    }

    /// Subscribes to the events from now on that match any of `filters`, or to all when there are
    /// none. Filters know `namespace`, `topic`, and `event.FIELD` of containerd's own events.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not parse.
    pub fn subscribe(&self, filters: &[String]) -> Result<Subscription> {
        let filter = Filter::parse(filters)?;
        let queue = Arc::new(Queue::default());
        let subscriber = Subscriber { filter, queue: Arc::clone(&queue) };
        let mut state = self.lock();
        for (exit, size) in state.exits.iter().flatten() {
            subscriber.offer(exit, *size);
        }
        state.subscribers.push(subscriber);
        Ok(Subscription { exchange: self.clone(), queue })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and the state is consistent at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    /// Queues an event that passes the filter.
    fn offer(&self, envelope: &Arc<Envelope>, size: usize) {
        if self.filter.matches(&View(envelope)) {
            self.queue.push(envelope, size);
        }
    }
}

/// The receiving end. Dropping it ends the subscription.
pub struct Subscription {
    exchange: Exchange,
    queue: Arc<Queue>,
}

impl Subscription {
    /// Waits for the next event. It may be dropped while it waits; no event is lost by that.
    ///
    /// # Errors
    /// `ResourceExhausted`, from then on, when the subscriber fell too far behind.
    pub async fn next(&mut self) -> Result<Arc<Envelope>> {
        self.queue.pop().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.exchange.lock().subscribers.retain(|other| !Arc::ptr_eq(&other.queue, &self.queue));
    }
}

#[cfg(test)]
mod tests {
    use berth_proto::containerd::events::TaskStart;
    use berth_types::Kind;

    use super::*;

    fn start(pid: u32) -> TaskStart {
        TaskStart { container_id: "c".into(), pid }
    }

    #[tokio::test]
    async fn subscribers_get_all_events_in_order() {
        let exchange = Exchange::new();
        exchange.publish("default", "/tasks/start", &start(0)).unwrap();
        let mut one = exchange.subscribe(&[]).unwrap();
        let mut two = exchange.subscribe(&[]).unwrap();
        for pid in 1..=100 {
            exchange.publish("default", "/tasks/start", &start(pid)).unwrap();
        }
        for subscription in [&mut one, &mut two] {
            for pid in 1..=100 {
                let envelope = subscription.next().await.unwrap();
                let event = envelope.event.as_ref().unwrap();
                assert_eq!(event.type_url, "containerd.events.TaskStart");
                assert_eq!(TaskStart::decode(&*event.value).unwrap().pid, pid);
            }
        }
    }

    #[tokio::test]
    async fn a_waiting_subscriber_wakes() {
        let exchange = Exchange::new();
        let mut subscription = exchange.subscribe(&[]).unwrap();
        let waiting = tokio::spawn(async move { subscription.next().await });
        tokio::task::yield_now().await;
        exchange.publish("default", "/tasks/start", &start(7)).unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().topic, "/tasks/start");
    }

    #[tokio::test]
    async fn filters_choose() {
        let exchange = Exchange::new();
        let filters = ["namespace==b,topic~=|^/tasks/|".to_owned(), "event.container_id==x".into()];
        let mut subscription = exchange.subscribe(&filters).unwrap();
        exchange.publish("a", "/tasks/start", &start(1)).unwrap();
        exchange.publish("b", "/other", &start(2)).unwrap();
        exchange.publish("b", "/tasks/start", &start(3)).unwrap();
        let named = TaskStart { container_id: "x".into(), pid: 4 };
        exchange.publish("a", "/other", &named).unwrap();
        for pid in [3, 4] {
            let envelope = subscription.next().await.unwrap();
            let event = envelope.event.as_ref().unwrap();
            assert_eq!(TaskStart::decode(&*event.value).unwrap().pid, pid);
        }
        assert!(exchange.subscribe(&["topic=".to_owned()]).is_err());
    }

    #[test]
    fn a_dropped_subscription_is_forgotten() {
        let exchange = Exchange::new();
        let kept = exchange.subscribe(&[]).unwrap();
        drop(exchange.subscribe(&[]).unwrap());
        assert_eq!(exchange.lock().subscribers.len(), 1);
        drop(kept);
        assert_eq!(exchange.lock().subscribers.len(), 0);
    }

    #[tokio::test]
    async fn exits_wait_for_subscribers_that_come_back() {
        let exchange = Exchange::keeping_exits();
        exchange.publish("default", "/tasks/start", &start(1)).unwrap();
        exchange.publish("default", EXIT, &start(2)).unwrap();
        let mut back = exchange.subscribe(&["namespace==default".to_owned()]).unwrap();
        let mut other = exchange.subscribe(&["namespace==other".to_owned()]).unwrap();
        exchange.publish("default", EXIT, &start(3)).unwrap();
        exchange.publish("other", EXIT, &start(4)).unwrap();
        let pid = async |subscription: &mut Subscription| {
            let envelope = subscription.next().await.unwrap();
            TaskStart::decode(&*envelope.event.as_ref().unwrap().value).unwrap().pid
        };
        assert_eq!((pid(&mut back).await, pid(&mut back).await), (2, 3));
        assert_eq!(pid(&mut other).await, 4);
        exchange.forget_exits();
        let mut late = exchange.subscribe(&[]).unwrap();
        exchange.publish("default", EXIT, &start(5)).unwrap();
        assert_eq!(pid(&mut late).await, 5);
    }

    #[test]
    fn malformed_events_are_refused() {
        let exchange = Exchange::new();
        for (namespace, topic) in [("", "/a"), ("a/b", "/a"), ("a", ""), ("a", "a")] {
            let error = exchange.publish(namespace, topic, &start(1)).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{namespace:?} {topic:?}");
        }
        let timeless = Envelope { namespace: "a".into(), topic: "/a".into(), ..Default::default() };
        assert_eq!(exchange.forward(timeless).unwrap_err().kind(), Kind::InvalidArgument);
    }
}
