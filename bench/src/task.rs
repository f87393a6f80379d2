//! Create and start of a task as a client of containerd's API sees them, without the client's own
//! start, and without what comes before (container, snapshot) and after.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_proto::containerd::services::snapshots::v1::MountsRequest;
use berth_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use berth_proto::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteTaskRequest, StartRequest, WaitRequest,
};
use berth_proto::containerd::types::Mount;
use berth_tests::Engine;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::Bench;
use crate::floor::Floor;
use crate::peer::Peer;
use crate::samples::{Samples, alternate};
use crate::table::{Better, Table};

/// Tasks in turn, of the engines that have this API, and the kernel work alone.
pub(crate) fn measure(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut kernel = Floor::start()?;
    let mut floor = Samples::default();
    let mut number = 0;
    let figures = alternate(bench.arguments.runs, peers, |peer| {
        let Some(engine) = peer.for_ctr() else { return Ok(None) };
        number += 1;
        floor.add_time(kernel.take()?);
        let id = format!("task-{number}");
        engine.ctr(&["containers", "create", &bench.image, &id, "true"]).success();
        let taken = runtime.block_on(async { Client::connect(engine).await?.run(&id).await })?;
        engine.ctr(&["containers", "rm", &id]).success();
        Ok(Some(taken.as_secs_f64() * 1e3))
    })?;
    table.add("task create + start by gRPC", "ms", Better::Less, &figures, Some(&floor));
    Ok(())
}

/// A connection in the engine's namespace.
struct Client {
    channel: Channel,
    namespace: String,
}

impl Client {
    async fn connect(engine: &Engine) -> Result<Self> {
        let socket = engine.address();
        let connect = move |_: Uri| {
            let socket: PathBuf = socket.clone();
            async { UnixStream::connect(socket).await.map(TokioIo::new) }
        };
        // The address is of no account: the connector knows the socket.
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await?;
        Ok(Self { channel, namespace: engine.namespace().to_owned() })
    }

    /// Runs the container's task to its end and removes it; how long create and start took.
    async fn run(&self, id: &str) -> Result<Duration> {
        let mut tasks = TasksClient::new(self.channel.clone());
        let container_id = id.to_owned();
        let rootfs = self.mounts(id).await?;
        let create = self.request(CreateTaskRequest {
            container_id: container_id.clone(),
            rootfs,
            ..Default::default()
        })?;
        let start = self
            .request(StartRequest { container_id: container_id.clone(), ..Default::default() })?;

        let begin = Instant::now();
        tasks.create(create).await?;
        tasks.start(start).await?;
        let taken = begin.elapsed();

        let wait = WaitRequest { container_id: container_id.clone(), ..Default::default() };
        tasks.wait(self.request(wait)?).await?;
        tasks.delete(self.request(DeleteTaskRequest { container_id })?).await?;
        Ok(taken)
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let request = MountsRequest { snapshotter: "overlayfs".to_owned(), key: key.to_owned() };
        Ok(snapshots.mounts(self.request(request)?).await?.into_inner().mounts)
    }

    fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let namespace = self.namespace.parse().context("the namespace as metadata")?;
        request.metadata_mut().insert("containerd-namespace", namespace);
        Ok(request)
    }
}
