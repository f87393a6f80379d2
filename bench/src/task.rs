//! Create and start of a task as a client of containerd's API sees them, without the client's own
//! start, and without what comes before (container, snapshot) and after.

use std::time::{Duration, Instant};

use anyhow::Result;
use berth_proto::containerd::services::snapshots::v1::MountsRequest;
use berth_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use berth_proto::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteTaskRequest, StartRequest, WaitRequest,
};
use berth_proto::containerd::types::Mount;

use crate::Bench;
use crate::client::Client;
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
        let taken =
            runtime.block_on(async { Client::connect(engine).await?.run_task(&id).await })?;
        engine.ctr(&["containers", "rm", &id]).success();
        Ok(Some(taken.as_secs_f64() * 1e3))
    })?;
    table.add("task create + start by gRPC", "ms", Better::Less, &figures, Some(&floor));
    Ok(())
}

impl Client {
    /// Runs the container's task to its end and removes it; how long create and start took.
    async fn run_task(&self, id: &str) -> Result<Duration> {
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
}
