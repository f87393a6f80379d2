//! What every gRPC server may say of itself: that it serves, and what.

use berth_tests::{Engine, Flavor};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::{Api, code};

#[tokio::test]
async fn an_engine_is_healthy() {
    let api = Api::start().await;
    let mut client = api.client(HealthClient::new);
    let check = |service: &str| HealthCheckRequest { service: service.into() };
    let health = client.check(check("")).await.unwrap().into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);
    assert_eq!(code(client.check(check("nobodys.Service")).await), Code::NotFound);
    // containerd's watch is as silent as its subscriptions.
    if api.engine.flavor() == Flavor::Berth {
        let mut watch = client.watch(check("")).await.unwrap().into_inner();
        let first = watch.message().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving);
    }
}

/// Each service of containerd's API, which containerd itself does not list.
#[tokio::test]
async fn services_are_listed_and_described() {
    let Some(engine) = Engine::berth() else { return };
    let api = Api::of(engine).await;
    let ask = |asked: MessageRequest| {
        let mut client = api.client(ServerReflectionClient::new);
        async move {
            let host = String::new();
            let request = ServerReflectionRequest { host, message_request: Some(asked) };
            let stream = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
            let answer = stream.into_inner().message().await.unwrap().unwrap();
            answer.message_response.unwrap()
        }
    };
    let listed = ask(MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = listed else { panic!("{listed:?}") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in [
        "containers.v1.Containers",
        "content.v1.Content",
        "diff.v1.Diff",
        "events.v1.Events",
        "images.v1.Images",
        "introspection.v1.Introspection",
        "leases.v1.Leases",
        "mounts.v1.Mounts",
        "namespaces.v1.Namespaces",
        "sandbox.v1.Controller",
        "sandbox.v1.Store",
        "snapshots.v1.Snapshots",
        "streaming.v1.Streaming",
        "tasks.v1.Tasks",
        "transfer.v1.Transfer",
        "version.v1.Version",
    ] {
        let name = format!("containerd.services.{service}");
        assert!(names.contains(&name), "{name}: {names:?}");
        let described = ask(MessageRequest::FileContainingSymbol(name)).await;
        assert!(matches!(described, MessageResponse::FileDescriptorResponse(_)), "{described:?}");
    }
}
