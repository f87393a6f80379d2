//! Calls without a namespace, and in one that can't be: all of them are refused.

use berth_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_proto::containerd::services::containers::v1::{
    CreateContainerRequest, DeleteContainerRequest, GetContainerRequest, ListContainersRequest,
    UpdateContainerRequest,
};
use berth_proto::containerd::services::content::v1::content_client::ContentClient;
use berth_proto::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, Info as ContentInfo, InfoRequest, ListContentRequest,
    ListStatusesRequest, ReadContentRequest, StatusRequest, UpdateRequest,
};
use berth_proto::containerd::services::events::v1::PublishRequest;
use berth_proto::containerd::services::events::v1::events_client::EventsClient;
use berth_proto::containerd::services::images::v1::images_client::ImagesClient;
use berth_proto::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, ListImagesRequest, UpdateImageRequest,
};
use berth_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use berth_proto::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, DeleteResourceRequest, ListRequest,
    ListResourcesRequest, Resource,
};
use berth_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, ListSnapshotsRequest, MountsRequest, RemoveSnapshotRequest,
    StatSnapshotRequest, UsageRequest, ViewSnapshotRequest,
};
use berth_proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use berth_proto::containerd::services::tasks::v1::{
    CloseIoRequest, CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest,
    GetRequest, KillRequest, ListPidsRequest, ListTasksRequest, MetricsRequest, PauseTaskRequest,
    ResizePtyRequest, ResumeTaskRequest, StartRequest, UpdateTaskRequest, WaitRequest,
};
use berth_tests::Flavor;
use berth_types::Digest;
use prost_types::Any;
use tonic::{Code, Request};

use super::Api;
use super::refusals::{container, image, overlay, prepare};

/// All calls that need a namespace, made in the one called `name`, or without one.
struct Nowhere<'a> {
    api: &'a Api,
    name: Option<&'a str>,
    /// What came of them.
    codes: Vec<(&'static str, Code)>,
}

/// The code of an answer. A stream says with its first message what others say at once.
macro_rules! answered {
    ($response:ident) => {{
        let _ = $response;
        Code::Ok
    }};
    ($response:ident @ stream) => {
        $response.into_inner().message().await.err().map_or(Code::Ok, |status| status.code())
    };
}

/// Makes calls of one service; those that answer with a stream are marked.
macro_rules! call {
    ($nowhere:ident, $client:ident: $($method:ident $(@ $stream:ident)? $request:expr),* $(,)?) => {$(
        let mut client = $nowhere.api.client($client::new);
        let request = match $nowhere.name {
            Some(name) => $nowhere.api.request_in(name, $request),
            None => Request::new($request),
        };
        let named = concat!(stringify!($client), " ", stringify!($method));
        let code = match client.$method(request).await {
            Err(status) => status.code(),
            Ok(response) => answered!(response $(@ $stream)?),
        };
        $nowhere.codes.push((named, code));
    )*};
}

fn id() -> String {
    "x".to_owned()
}

fn digest() -> String {
    Digest::of(b"nothing").to_string()
}

impl Nowhere<'_> {
    async fn records(&mut self) {
        call!(self, ContainersClient:
            get GetContainerRequest { id: id() },
            list ListContainersRequest::default(),
            list_stream @ stream ListContainersRequest::default(),
            create CreateContainerRequest { container: Some(container("x")) },
            update UpdateContainerRequest { container: Some(container("x")), update_mask: None },
            delete DeleteContainerRequest { id: id() },
        );
        call!(self, ImagesClient:
            get GetImageRequest { name: id() },
            list ListImagesRequest::default(),
            create CreateImageRequest { image: Some(image("x")), ..Default::default() },
            update UpdateImageRequest { image: Some(image("x")), ..Default::default() },
            delete DeleteImageRequest { name: id(), ..Default::default() },
        );
        let resource = || Some(Resource { r#type: "ingests".into(), id: id() });
        call!(self, LeasesClient:
            create CreateRequest { id: id(), ..Default::default() },
            delete DeleteRequest { id: id(), sync: false },
            list ListRequest::default(),
            add_resource AddResourceRequest { id: id(), resource: resource() },
            delete_resource DeleteResourceRequest { id: id(), resource: resource() },
            list_resources ListResourcesRequest { id: id() },
        );
        let event = Some(Any { type_url: "x".into(), value: Vec::new() });
        call!(self, EventsClient: publish PublishRequest { topic: "/x".into(), event });
    }

    async fn files(&mut self) {
        call!(self, ContentClient:
            info InfoRequest { digest: digest() },
            list @ stream ListContentRequest::default(),
            read @ stream ReadContentRequest { digest: digest(), ..Default::default() },
            update UpdateRequest {
                info: Some(ContentInfo { digest: digest(), ..Default::default() }),
                update_mask: None,
            },
            delete DeleteContentRequest { digest: digest() },
            status StatusRequest { r#ref: id() },
            list_statuses ListStatusesRequest::default(),
            abort AbortRequest { r#ref: id() },
        );
        let (snapshotter, key) = (overlay, id);
        call!(self, SnapshotsClient:
            prepare prepare("x"),
            view ViewSnapshotRequest { snapshotter: snapshotter(), key: key(), ..Default::default() },
            mounts MountsRequest { snapshotter: snapshotter(), key: key() },
            commit CommitSnapshotRequest {
                snapshotter: snapshotter(), name: id(), key: key(), ..Default::default()
            },
            remove RemoveSnapshotRequest { snapshotter: snapshotter(), key: key() },
            stat StatSnapshotRequest { snapshotter: snapshotter(), key: key() },
            list @ stream ListSnapshotsRequest { snapshotter: snapshotter(), filters: Vec::new() },
            usage UsageRequest { snapshotter: snapshotter(), key: key() },
        );
    }

    async fn tasks(&mut self) {
        let (container_id, exec_id) = (id, id);
        call!(self, TasksClient:
            create CreateTaskRequest { container_id: container_id(), ..Default::default() },
            start StartRequest { container_id: container_id(), ..Default::default() },
            delete DeleteTaskRequest { container_id: container_id() },
            delete_process DeleteProcessRequest { container_id: container_id(), exec_id: exec_id() },
            get GetRequest { container_id: container_id(), ..Default::default() },
            list ListTasksRequest::default(),
            kill KillRequest { container_id: container_id(), ..Default::default() },
            exec ExecProcessRequest {
                container_id: container_id(), exec_id: exec_id(), ..Default::default()
            },
            resize_pty ResizePtyRequest { container_id: container_id(), ..Default::default() },
            close_io CloseIoRequest { container_id: container_id(), ..Default::default() },
            pause PauseTaskRequest { container_id: container_id() },
            resume ResumeTaskRequest { container_id: container_id() },
            list_pids ListPidsRequest { container_id: container_id() },
            update UpdateTaskRequest { container_id: container_id(), ..Default::default() },
            metrics MetricsRequest::default(),
            wait WaitRequest { container_id: container_id(), ..Default::default() },
        );
    }
}

#[tokio::test]
async fn calls_without_a_namespace_and_in_a_malformed_one() {
    let api = Api::start().await;
    for (name, expected) in [
        (None, Code::FailedPrecondition),
        (Some(""), Code::FailedPrecondition),
        (Some("a/b"), Code::InvalidArgument),
        (Some("../x"), Code::InvalidArgument),
        (Some("a b"), Code::InvalidArgument),
        (Some(&"n".repeat(77)), Code::InvalidArgument),
    ] {
        let mut calls = Nowhere { api: &api, name, codes: Vec::new() };
        calls.records().await;
        calls.files().await;
        calls.tasks().await;
        assert_eq!(calls.codes.len(), 50);
        for (call, code) in calls.codes {
            let none = api.engine.flavor() == Flavor::Containerd && code == Code::Unknown;
            assert!(code == expected || none, "{call} in {name:?}: {code:?}");
        }
    }
    let listed = api.engine.ctr(&["namespaces", "ls", "-q"]).success().stdout;
    assert_eq!(listed, "", "a refused call made a namespace");
}
