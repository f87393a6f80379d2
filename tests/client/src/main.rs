//! A container's whole life as a program drives it that is written against the crate
//! `containerd-client`.
//!
//! Arguments: socket, namespace, image, `pull` or `there`, a FIFO for the container's output. It
//! fails where something is not as expected.

mod image;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use client::Client;
use client::services::v1::container::Runtime;
use client::services::v1::snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    DeleteTaskRequest, GetContainerRequest, GetRequest, KillRequest, PublishRequest, StartRequest,
    SubscribeRequest, WaitRequest,
};
use client::types::Envelope;
use containerd_client as client;
use prost::Message;
use prost_types::Any;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tonic::{Code, Request};

const ID: &str = "life";
const SNAPSHOTTER: &str = "overlayfs";
const PROBE: &str = "/probe";
const SIGKILL: u32 = 9;

/// The engine, and the namespace in it.
struct Engine {
    client: Client,
    namespace: String,
}

impl Engine {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let namespace = self.namespace.parse().expect("a namespace");
        request.metadata_mut().insert("containerd-namespace", namespace);
        request
    }

    /// Events from when this returns. containerd answers a subscription with its first event
    /// alone, so that one is published for that.
    async fn subscribe(&self) -> UnboundedReceiver<Envelope> {
        let (sender, mut heard) = unbounded_channel();
        let mut events = self.client.events();
        let filters = vec![format!("namespace=={}", self.namespace)];
        tokio::spawn(async move {
            let stream = events.subscribe(SubscribeRequest { filters }).await;
            let mut stream = stream.expect("a subscription").into_inner();
            while let Ok(Some(envelope)) = stream.message().await {
                let _ = sender.send(envelope);
            }
        });
        loop {
            let event = Some(Any { type_url: "probe".into(), value: Vec::new() });
            let probe = PublishRequest { topic: PROBE.into(), event };
            let published = self.client.events().publish(self.request(probe)).await;
            published.expect("an event to be published");
            let soon = Duration::from_millis(50);
            if tokio::time::timeout(soon, heard.recv()).await.is_ok() {
                return heard;
            }
        }
    }

    async fn create(&self, image: &str) {
        let spec = json!({
            "ociVersion": "1.1.0",
            "process": {
                "args": ["sh", "-c", "echo hello from $$; exec sleep 1000"],
                "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
            },
            "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": {
                "cgroupsPath": format!("/{}/{ID}", self.namespace),
                "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }],
            },
        });
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
            value: spec.to_string().into_bytes(),
        };
        let container = Container {
            id: ID.into(),
            image: image.into(),
            runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
            snapshotter: SNAPSHOTTER.into(),
            snapshot_key: ID.into(),
            spec: Some(spec),
            ..Default::default()
        };
        let create = CreateContainerRequest { container: Some(container) };
        self.client.containers().create(self.request(create)).await.expect("a container");
    }

    async fn run(&self, rootfs: Vec<client::types::Mount>, output: &str) {
        let mut tasks = self.client.tasks();
        let id = || ID.to_owned();
        // Who names one output names both: runc's shim opens neither or each.
        let (stdout, stderr) = (output.to_owned(), output.to_owned());
        let create =
            CreateTaskRequest { container_id: id(), rootfs, stdout, stderr, ..Default::default() };
        let fifo = std::fs::File::options().read(true).write(true).open(output);
        let mut hello = BufReader::new(fifo.expect("a FIFO")).lines();
        let created = tasks.create(self.request(create)).await.expect("a task").into_inner();
        let start = StartRequest { container_id: id(), ..Default::default() };
        let started = tasks.start(self.request(start)).await.expect("a start").into_inner();
        assert_eq!(created.pid, started.pid);
        assert!(Path::new(&format!("/proc/{}", started.pid)).exists());
        let wait = self.request(WaitRequest { container_id: id(), ..Default::default() });
        let mut waiter = tasks.clone();
        let waiting = tokio::spawn(async move { waiter.wait(wait).await });
        let said = tokio::task::spawn_blocking(move || hello.next()).await.expect("no panic");
        assert_eq!(said.expect("a line").expect("a text"), "hello from 1");
        let kill = KillRequest { container_id: id(), signal: SIGKILL, ..Default::default() };
        tasks.kill(self.request(kill)).await.expect("a kill");
        let exit = waiting.await.expect("no panic").expect("an exit").into_inner();
        assert_eq!(exit.exit_status, 128 + SIGKILL);
        let delete = DeleteTaskRequest { container_id: id() };
        let deleted = tasks.delete(self.request(delete)).await.expect("a deletion").into_inner();
        assert_eq!((deleted.exit_status, deleted.exited_at), (exit.exit_status, exit.exited_at));
        let get = self.request(GetRequest { container_id: id(), ..Default::default() });
        assert_eq!(tasks.get(get).await.expect_err("no task").code(), Code::NotFound);
    }

    async fn remove(&self) {
        let mut containers = self.client.containers();
        let delete = DeleteContainerRequest { id: ID.into() };
        containers.delete(self.request(delete)).await.expect("a deletion");
        let get = self.request(GetContainerRequest { id: ID.into() });
        assert_eq!(containers.get(get).await.expect_err("no container").code(), Code::NotFound);
        let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: ID.into() };
        self.client.snapshots().remove(self.request(remove)).await.expect("a removal");
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [socket, namespace, image, origin, output] = &arguments[..] else {
        panic!("give socket, namespace, image, pull or there, and a FIFO");
    };
    let client = Client::from_path(socket).await.expect("a connection");
    let engine = Engine { client, namespace: namespace.clone() };
    let version = engine.client.version().version(()).await.expect("a version").into_inner();
    assert!(version.version.contains('.'), "{version:?}");
    if origin == "pull" {
        engine.pull(image).await;
    }
    let mut heard = engine.subscribe().await;
    let parent = engine.chain_of(image).await;
    let prepare = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        key: ID.into(),
        parent,
        ..Default::default()
    };
    let prepared = engine.client.snapshots().prepare(engine.request(prepare)).await;
    let rootfs = prepared.expect("a snapshot").into_inner().mounts;
    engine.create(image).await;
    engine.run(rootfs, output).await;
    engine.remove().await;
    let mut topics = Vec::new();
    while topics.last().is_none_or(|last| last != "/containers/delete") {
        let envelope = heard.recv().await.expect("an event");
        if envelope.topic == "/tasks/exit" {
            let exit = client::events::TaskExit::decode(&*envelope.event.expect("it").value);
            assert_eq!(exit.expect("an exit").exit_status, 128 + SIGKILL);
        }
        topics.push(envelope.topic);
    }
    topics.retain(|topic| topic.starts_with("/tasks/") || topic.starts_with("/containers/"));
    let expected = ["create", "start", "exit", "delete"].map(|verb| format!("/tasks/{verb}"));
    assert_eq!(topics[1..topics.len() - 1], expected, "{topics:?}");
    assert_eq!(topics[0], "/containers/create");
}
