use berth_proto::containerd::events::{NamespaceCreate, TaskStart};
use berth_proto::containerd::services::events::v1::events_client::EventsClient;
use berth_proto::containerd::services::events::v1::{
    ForwardRequest, PublishRequest, SubscribeRequest,
};
use berth_proto::containerd::services::leases::v1::CreateRequest;
use berth_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use berth_proto::containerd::types::Envelope;
use prost::{Message, Name};
use prost_types::Any;
use tokio::sync::mpsc;
use tonic::{Code, Request};

use super::{Api, code};

/// What tells subscribers that they are one.
const PROBE: &str = "/probe";

/// A subscription, which is there when this returns. It also hears probes, which are left out.
pub(super) struct Subscription(mpsc::UnboundedReceiver<Envelope>);

impl Subscription {
    /// containerd answers a subscription with its first event alone.
    pub(super) async fn new(api: &Api, filters: &[&str]) -> Self {
        let mut filters: Vec<_> = filters.iter().map(|filter| filter.to_string()).collect();
        if !filters.is_empty() {
            filters.push(format!("topic=={PROBE:?}"));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut client = api.client(EventsClient::new);
        tokio::spawn(async move {
            let request = Request::new(SubscribeRequest { filters });
            let mut events = client.subscribe(request).await.unwrap().into_inner();
            while let Ok(Some(envelope)) = events.message().await {
                sender.send(envelope).ok();
            }
        });
        let mut subscription = Self(receiver);
        let mut publisher = api.client(EventsClient::new);
        loop {
            let probe = PublishRequest { topic: PROBE.into(), event: Some(start("probe")) };
            publisher.publish(api.request(probe)).await.unwrap();
            let soon = std::time::Duration::from_millis(20);
            if tokio::time::timeout(soon, subscription.0.recv()).await.is_ok() {
                return subscription;
            }
        }
    }

    pub(super) async fn next(&mut self) -> Envelope {
        loop {
            let envelope = self.0.recv().await.unwrap();
            if envelope.topic != PROBE {
                return envelope;
            }
        }
    }
}

fn start(id: &str) -> Any {
    let event = TaskStart { container_id: id.into(), pid: 7 };
    Any { type_url: TaskStart::full_name(), value: event.encode_to_vec() }
}

#[tokio::test]
async fn what_is_published_is_heard_by_whom_it_concerns() {
    let api = Api::start().await;
    let mut client = api.client(EventsClient::new);
    let namespace = api.engine.namespace().to_owned();
    // As Docker's daemon asks.
    let filter = format!("namespace=={namespace},topic~=|^/tasks/|");
    let mut tasks = Subscription::new(&api, &[&filter]).await;
    let mut one = Subscription::new(&api, &["event.container_id==one"]).await;
    let mut all = Subscription::new(&api, &[]).await;

    let publish = |topic: &str, event| PublishRequest { topic: topic.into(), event: Some(event) };
    for (topic, id) in [("/tasks/a", "two"), ("/other", "two"), ("/tasks/b", "one")] {
        client.publish(api.request(publish(topic, start(id)))).await.unwrap();
    }
    let elsewhere = api.request_in("elsewhere", publish("/tasks/c", start("three")));
    client.publish(elsewhere).await.unwrap();
    client.publish(api.request(publish("/tasks/last", start("one")))).await.unwrap();
    let mut topics = Vec::new();
    while topics.last().is_none_or(|topic| topic != "/tasks/last") {
        let envelope = tasks.next().await;
        assert_eq!(envelope.namespace, namespace);
        assert!(envelope.timestamp.is_some());
        topics.push(envelope.topic);
    }
    assert_eq!(topics, ["/tasks/a", "/tasks/b", "/tasks/last"]);
    assert_eq!(one.next().await.topic, "/tasks/b");
    assert_eq!(one.next().await.topic, "/tasks/last");
    let mut heard = 0;
    while all.next().await.topic != "/tasks/last" {
        heard += 1;
    }
    assert_eq!(heard, 4);

    let forward = |topic: &str| ForwardRequest {
        envelope: Some(Envelope {
            timestamp: Some(std::time::SystemTime::UNIX_EPOCH.into()),
            namespace: namespace.clone(),
            topic: topic.into(),
            event: Some(start("forwarded")),
        }),
    };
    client.forward(Request::new(forward("/tasks/forwarded"))).await.unwrap();
    assert_eq!(tasks.next().await.timestamp.unwrap().seconds, 0);
    for topic in ["", "no-slash", "/a b"] {
        let refused = client.publish(api.request(publish(topic, start("x")))).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{topic:?}");
        let refused = client.forward(Request::new(forward(topic))).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{topic:?}");
    }
    let nameless = client.publish(Request::new(publish("/a", start("x")))).await;
    assert_eq!(code(nameless), Code::FailedPrecondition);
    let request = SubscribeRequest { filters: vec!["topic=".into()] };
    let refused = match client.subscribe(Request::new(request)).await {
        Ok(stream) => stream.into_inner().message().await.unwrap_err().code(),
        Err(status) => status.code(),
    };
    api.check(refused, Code::InvalidArgument);
}

#[tokio::test]
async fn a_namespace_that_is_made_by_use_is_not_told_of() {
    let api = Api::start().await;
    let mut created = Subscription::new(&api, &["topic==\"/namespaces/create\""]).await;
    let mut leases = api.client(LeasesClient::new);
    let lease = CreateRequest { id: "l".into(), ..Default::default() };
    leases.create(api.request(lease)).await.unwrap();
    let made = format!("{}-made", api.engine.namespace());
    api.engine.ctr(&["namespaces", "create", &made]).success();
    let event = created.next().await.event.unwrap();
    assert_eq!(NamespaceCreate::decode(&*event.value).unwrap().name, made);
    api.engine.ctr(&["namespaces", "rm", &made]).success();
}
