//! `containerd.services.snapshots.v1.Snapshots` over one snapshotter, for a daemon that takes it
//! as a proxy plugin. That daemon has put namespaces into the keys and checked labels.

use std::sync::Arc;

use tokio_stream::Iter;
use tonic::{Code, Request, Response, Status};

use berth_proto::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, ListSnapshotsRequest, ListSnapshotsResponse,
    MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse,
    RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest,
    UpdateSnapshotResponse, UsageRequest, UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
    snapshots_server,
};
use berth_types::filter::Filter;
use berth_types::labels::Labels;
use berth_types::{Error, Result as Outcome};

use crate::contract::{CommitOptions, PrepareOptions, Snapshotter};
use crate::wire;

/// A snapshotter that is served.
pub struct Service(Arc<dyn Snapshotter>);

impl Service {
    /// Serves `snapshotter`, whatever name calls give it.
    pub fn new(snapshotter: Arc<dyn Snapshotter>) -> Self {
        Self(snapshotter)
    }
}

#[tonic::async_trait]
impl snapshots_server::Snapshots for Service {
    type ListStream = Iter<std::vec::IntoIter<Result<ListSnapshotsResponse, Status>>>;

    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let PrepareSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let options = PrepareOptions { labels: labels.into_iter().collect() };
        let mounts = self.0.prepare(&key, &parent, options).await.map_err(status)?;
        Ok(Response::new(PrepareSnapshotResponse { mounts: wire::mounts(mounts) }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let ViewSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let options = PrepareOptions { labels: labels.into_iter().collect() };
        let mounts = self.0.view(&key, &parent, options).await.map_err(status)?;
        Ok(Response::new(ViewSnapshotResponse { mounts: wire::mounts(mounts) }))
    }

    async fn mounts(
        &self,
        request: Request<MountsRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let mounts = self.0.mounts(&request.into_inner().key).await.map_err(status)?;
        Ok(Response::new(MountsResponse { mounts: wire::mounts(mounts) }))
    }

    async fn commit(
        &self,
        request: Request<CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let CommitSnapshotRequest { name, key, labels, .. } = request.into_inner();
        let options =
            CommitOptions { labels: labels.into_iter().collect(), ..CommitOptions::default() };
        self.0.commit(&name, &key, options).await.map(Response::new).map_err(status)
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        self.0.remove(&request.into_inner().key).await.map(Response::new).map_err(status)
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        let info = self.0.stat(&request.into_inner().key).await.map_err(status)?;
        Ok(Response::new(StatSnapshotResponse { info: Some(wire::info(info)) }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let UpdateSnapshotRequest { info, update_mask, .. } = request.into_inner();
        let info = info.unwrap_or_default();
        let paths = update_mask.unwrap_or_default().paths;
        check(&paths).map_err(status)?;
        let labels: Labels = info.labels.into_iter().collect();
        let change = move |to: &mut Labels| relabel(to, &labels, &paths);
        let updated = self.0.update(&info.name, Box::new(change)).await.map_err(status)?;
        Ok(Response::new(UpdateSnapshotResponse { info: Some(wire::info(updated)) }))
    }

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let filter = Filter::parse(&request.into_inner().filters).map_err(status)?;
        let mut found = self.0.list("").await.map_err(status)?;
        found.retain(|info| filter.matches(info));
        let messages: Vec<_> = wire::lists(found).into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        let usage = self.0.usage(&request.into_inner().key).await.map_err(status)?;
        Ok(Response::new(wire::usage(usage)))
    }

    async fn cleanup(&self, _: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        self.0.cleanup().await.map(Response::new).map_err(status)
    }
}

/// Checks a field mask: only labels can be changed.
fn check(paths: &[String]) -> Outcome<()> {
    match paths.iter().find(|path| *path != "labels" && !path.starts_with("labels.")) {
        None => Ok(()),
        Some(path) => Err(Error::invalid_argument(format!("cannot update {path:?} of a snapshot"))),
    }
}

/// Takes those labels over that the paths name; none means all.
fn relabel(to: &mut Labels, from: &Labels, paths: &[String]) {
    if paths.is_empty() {
        to.clone_from(from);
    }
    for path in paths {
        match path.strip_prefix("labels.") {
            None => to.clone_from(from),
            Some(key) => match from.get(key).filter(|value| !value.is_empty()) {
                Some(value) => {
                    to.insert(key.to_owned(), value.clone());
                }
                None => {
                    to.remove(key);
                }
            },
        }
    }
}

/// The status that a client sees for an error.
fn status(error: Error) -> Status {
    Status::new(Code::from_i32(error.kind().code()), error.message())
}
