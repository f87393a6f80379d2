//! Clients that ask for much at once, or do not take what they asked for: others are served all
//! the same.

use berth_proto::containerd::events::TaskStart;
use berth_proto::containerd::services::containers::v1::container::Runtime;
use berth_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest,
    ListContainersRequest,
};
use berth_proto::containerd::services::content::v1::content_client::ContentClient;
use berth_proto::containerd::services::content::v1::{
    InfoRequest, ReadContentRequest, StatusRequest, WriteAction, WriteContentRequest,
};
use berth_proto::containerd::services::events::v1::events_client::EventsClient;
use berth_proto::containerd::services::events::v1::{PublishRequest, SubscribeRequest};
use berth_proto::containerd::services::version::v1::version_client::VersionClient;
use berth_tests::Flavor;
use berth_types::Digest;
use prost::{Message, Name};
use prost_types::Any;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::content::{has, keep, put};
use super::events::Subscription;
use super::{Api, code};

const MIB: usize = 1 << 20;
/// More than any pool of threads has.
const CROWD: usize = 1000;

fn container(id: &str, spec: usize) -> CreateContainerRequest {
    let container = Container {
        id: id.into(),
        runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        spec: Some(Any { type_url: "x".into(), value: vec![b'x'; spec] }),
        ..Default::default()
    };
    CreateContainerRequest { container: Some(container) }
}

/// Whether a client that has just come is served: from memory, and from the disk.
async fn is_served(api: &Api, digest: &Digest) -> bool {
    let other = Api::connect(&api.engine).await;
    let version = VersionClient::new(other.clone()).version(Request::new(())).await;
    let mut content = ContentClient::new(other.clone());
    let read = ReadContentRequest { digest: digest.to_string(), offset: 1, size: 1 };
    let mut read = content.read(api.request(read)).await.unwrap().into_inner();
    let status = StatusRequest { r#ref: "nobody".into() };
    let status = content.status(api.request(status)).await;
    version.is_ok()
        && read.message().await.unwrap().unwrap().data.len() == 1
        && code(status) == Code::NotFound
}

#[tokio::test]
async fn readers_that_do_not_read() {
    let api = Api::start().await;
    keep(&api).await;
    let digest = put(&api, &vec![b'x'; 4 * MIB], &[]).await.unwrap();
    let client = api.client(ContentClient::new);
    let open = || async {
        let read = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        client.clone().read(api.request(read)).await.unwrap().into_inner()
    };
    let mut readers = Vec::new();
    for _ in 0..CROWD {
        readers.push(open().await);
    }
    assert!(is_served(&api, &digest).await);
    // What they have not read is in the way of others on their own connection alone.
    drop(readers);
    let (mut reader, mut bytes) = (open().await, 0);
    while let Some(frame) = reader.message().await.unwrap() {
        bytes += frame.data.len();
    }
    assert_eq!(bytes, 4 * MIB);
}

#[tokio::test]
async fn writers_that_do_not_write() {
    let api = Api::start().await;
    keep(&api).await;
    let digest = put(&api, b"content", &[]).await.unwrap();
    let mut client = api.client(ContentClient::new);
    let mut writers = Vec::new();
    for number in 0..CROWD {
        let (requests, receiver) = tokio::sync::mpsc::channel(1);
        let stat = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: format!("ref-{number}"),
            ..Default::default()
        };
        requests.send(stat).await.unwrap();
        let session = client.write(api.leased("work", ReceiverStream::new(receiver))).await;
        let mut answers = session.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().offset, 0);
        writers.push((requests, answers));
    }
    assert!(is_served(&api, &digest).await);
}

/// A thousand who listen; and one who does not take what it hears.
#[tokio::test]
async fn subscribers_that_do_not_listen() {
    let api = Api::start().await;
    let mut client = api.client(EventsClient::new);
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut client = api.client(EventsClient::new);
        crowd.push(tokio::spawn(async move {
            let request =
                Request::new(SubscribeRequest { filters: vec!["topic==\"/end\"".into()] });
            client.subscribe(request).await?.into_inner().message().await
        }));
    }
    let publish = |topic: &str, size: usize| {
        let event = TaskStart { container_id: "x".repeat(size), pid: 1 };
        let event = Any { type_url: TaskStart::full_name(), value: event.encode_to_vec() };
        PublishRequest { topic: topic.into(), event: Some(event) }
    };
    let mut listener = Subscription::new(&api, &["topic~=^/e"]).await;
    for _ in 0..3 {
        client.publish(api.request(publish("/e/x", 100))).await.unwrap();
        assert_eq!(listener.next().await.topic, "/e/x");
    }
    // containerd keeps all for it.
    if api.engine.flavor() == Flavor::Berth {
        let request = Request::new(SubscribeRequest { filters: vec!["topic==\"/big\"".into()] });
        let mut sleeper = client.subscribe(request).await.unwrap().into_inner();
        for _ in 0..80 {
            client.publish(api.request(publish("/big", MIB))).await.unwrap();
        }
        let error = loop {
            match sleeper.message().await {
                Ok(event) => assert_eq!(event.unwrap().topic, "/big"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(error.message().contains("subscribe again"), "{error}");
    }
    client.publish(api.request(publish("/e/last", 1))).await.unwrap();
    assert_eq!(listener.next().await.topic, "/e/last");
    for one in crowd {
        one.abort();
    }
}

/// A client that gives many calls up loses none of those that it goes on with, on the same
/// connection.
#[tokio::test]
async fn calls_that_are_given_up() {
    let api = Api::start().await;
    let mut listener = Subscription::new(&api, &["topic==\"/after\""]).await;
    for _ in 0..10 {
        let calls: Vec<_> = (0..CROWD)
            .map(|_| {
                let mut client = api.client(ContainersClient::new);
                let request = api.request(ListContainersRequest::default());
                tokio::spawn(async move { drop(client.list(request).await) })
            })
            .collect();
        tokio::task::yield_now().await;
        for call in calls {
            call.abort();
        }
    }
    let event = Some(Any { type_url: TaskStart::full_name(), value: Vec::new() });
    let publish = PublishRequest { topic: "/after".into(), event };
    api.client(EventsClient::new).publish(api.request(publish)).await.unwrap();
    assert_eq!(listener.next().await.topic, "/after");
}

/// What was asked for is done whole or not at all, and can be asked for again, wherever its client
/// leaves.
#[tokio::test]
async fn changes_that_are_given_up() {
    let api = Api::start().await;
    let (containers, names) = (api.client(ContainersClient::new), 0..200);
    for number in names.clone() {
        let mut client = containers.clone();
        let request = api.request(container(&format!("c{number}"), 10));
        let call = tokio::spawn(async move { drop(client.create(request).await) });
        for _ in 0..number % 20 {
            tokio::task::yield_now().await;
        }
        call.abort();
    }
    for number in names {
        let (mut client, id) = (containers.clone(), format!("c{number}"));
        let again = client.create(api.request(container(&id, 10))).await;
        assert!(matches!(code(again), Code::Ok | Code::AlreadyExists));
        let got = client.get(api.request(GetContainerRequest { id: id.clone() })).await.unwrap();
        assert!(got.into_inner().container.unwrap().spec.is_some());
        client.delete(api.request(DeleteContainerRequest { id })).await.unwrap();
    }
}

#[tokio::test]
async fn messages_over_the_limit() {
    let api = Api::start().await;
    keep(&api).await;
    let mut containers = api.client(ContainersClient::new);
    let refused = containers.create(api.request(container("large", 17 * MIB))).await;
    assert_eq!(code(refused), Code::ResourceExhausted);
    let get = GetContainerRequest { id: "large".into() };
    assert_eq!(code(containers.get(api.request(get)).await), Code::NotFound);

    // In a stream, at first and later.
    let bytes = vec![b'x'; 17 * MIB];
    let refused = put(&api, &bytes, &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(!has(&api, &Digest::of(&bytes)).await);
    let write = |data: Vec<u8>| WriteContentRequest {
        action: WriteAction::Write.into(),
        r#ref: "grows".into(),
        data: data.into(),
        ..Default::default()
    };
    let requests = tokio_stream::iter([write(b"first".to_vec()), write(bytes)]);
    let mut client = api.client(ContentClient::new);
    let session = client.write(api.leased("work", requests)).await.unwrap();
    let mut answers = session.into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().offset, 5);
    assert_eq!(answers.message().await.unwrap_err().code(), Code::ResourceExhausted);
    let status = client.status(api.request(StatusRequest { r#ref: "grows".into() })).await.unwrap();
    assert_eq!(status.into_inner().status.unwrap().offset, 5);

    // An answer, which a stream gives in parts.
    for number in 0..18 {
        let create = container(&format!("c{number}"), MIB);
        containers.create(api.request(create)).await.unwrap();
    }
    let list = || api.request(ListContainersRequest::default());
    assert_eq!(code(containers.list(list()).await), Code::ResourceExhausted);
    let mut stream = containers.list_stream(list()).await.unwrap().into_inner();
    let mut listed = 0;
    while stream.message().await.unwrap().is_some() {
        listed += 1;
    }
    assert_eq!(listed, 18);
}

/// Tracing and the like put much into a call's metadata.
#[tokio::test]
async fn metadata_of_a_call() {
    let api = Api::start().await;
    keep(&api).await;
    let digest = put(&api, b"content", &[]).await.unwrap();
    for size in [10, 100, 1000] {
        let mut request = api.request(InfoRequest { digest: digest.to_string() });
        let value = MetadataValue::try_from("v".repeat(size << 10)).unwrap();
        request.metadata_mut().insert("x-baggage", value);
        api.client(ContentClient::new).info(request).await.unwrap();
    }
}
