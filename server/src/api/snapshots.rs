//! `containerd.services.snapshots.v1.Snapshots`.

use std::collections::HashMap;

use tokio_stream::Iter;
use tonic::{Request, Response, Status};

use berth_proto::containerd::events::{SnapshotCommit, SnapshotPrepare, SnapshotRemove};
use berth_proto::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, ListSnapshotsRequest, ListSnapshotsResponse,
    MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse,
    RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest,
    UpdateSnapshotResponse, UsageRequest, UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
    snapshots_server,
};
use berth_snapshotter::{CommitOptions, wire};
use berth_types::Error;
use berth_types::labels::Labels;

use super::backend::Backend;
use super::status::status;

/// Filesystem trees of images and containers.
pub(crate) struct Snapshots(pub(crate) Backend);

#[tonic::async_trait]
impl snapshots_server::Snapshots for Snapshots {
    type ListStream = Iter<std::vec::IntoIter<Result<ListSnapshotsResponse, Status>>>;

    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let PrepareSnapshotRequest { snapshotter, key, parent, labels } = request;
        let mounts = self.0.change(&metadata, |backend, scope| async move {
            let snapshotter = named(snapshotter)?;
            let snapshots = scope.snapshots(&snapshotter)?;
            let mounts = snapshots.prepare(&key, &parent, sorted(labels)).await?;
            let event = SnapshotPrepare { key, parent, snapshotter };
            backend.publish(scope.namespace(), "/snapshot/prepare", &event);
            Ok(mounts)
        });
        Ok(Response::new(PrepareSnapshotResponse { mounts: wire::mounts(mounts.await?) }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let ViewSnapshotRequest { snapshotter, key, parent, labels } = request;
        let mounts = self.0.change(&metadata, |_, scope| async move {
            let snapshots = scope.snapshots(&named(snapshotter)?)?;
            snapshots.view(&key, &parent, sorted(labels)).await
        });
        Ok(Response::new(ViewSnapshotResponse { mounts: wire::mounts(mounts.await?) }))
    }

    async fn mounts(
        &self,
        request: Request<MountsRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let MountsRequest { snapshotter, key } = request.into_inner();
        let snapshots =
            named(snapshotter).and_then(|name| scope.snapshots(&name)).map_err(status)?;
        let mounts = snapshots.mounts(&key).await.map_err(status)?;
        Ok(Response::new(MountsResponse { mounts: wire::mounts(mounts) }))
    }

    async fn commit(
        &self,
        request: Request<CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let (metadata, _, request) = request.into_parts();
        let CommitSnapshotRequest { snapshotter, name, key, labels } = request;
        let committed = self.0.change(&metadata, |backend, scope| async move {
            let snapshotter = named(snapshotter)?;
            let snapshots = scope.snapshots(&snapshotter)?;
            let options = CommitOptions { labels: sorted(labels), ..CommitOptions::default() };
            snapshots.commit(&name, &key, options).await?;
            let event = SnapshotCommit { key, name, snapshotter };
            backend.publish(scope.namespace(), "/snapshot/commit", &event);
            Ok(())
        });
        committed.await.map(Response::new)
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let (metadata, _, RemoveSnapshotRequest { snapshotter, key }) = request.into_parts();
        let removed = self.0.change(&metadata, |backend, scope| async move {
            let snapshotter = named(snapshotter)?;
            scope.snapshots(&snapshotter)?.remove(&key).await?;
            let event = SnapshotRemove { key, snapshotter };
            backend.publish(scope.namespace(), "/snapshot/remove", &event);
            Ok(())
        });
        removed.await.map(Response::new)
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let StatSnapshotRequest { snapshotter, key } = request.into_inner();
        let snapshots =
            named(snapshotter).and_then(|name| scope.snapshots(&name)).map_err(status)?;
        let found = snapshots.stat(&key).await.map_err(status)?;
        Ok(Response::new(StatSnapshotResponse { info: Some(wire::info(found)) }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let UpdateSnapshotRequest { snapshotter, info: changed, update_mask } = request;
        let Info { name, labels, .. } = changed.unwrap_or_default();
        let paths = update_mask.unwrap_or_default().paths;
        let updated = self.0.change(&metadata, |_, scope| async move {
            let snapshots = scope.snapshots(&named(snapshotter)?)?;
            snapshots.update(&name, sorted(labels), paths).await
        });
        Ok(Response::new(UpdateSnapshotResponse { info: Some(wire::info(updated.await?)) }))
    }

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let ListSnapshotsRequest { snapshotter, filters } = request.into_inner();
        let snapshots =
            named(snapshotter).and_then(|name| scope.snapshots(&name)).map_err(status)?;
        let found = snapshots.list(&filters).await.map_err(status)?;
        let messages: Vec<_> = wire::lists(found).into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let UsageRequest { snapshotter, key } = request.into_inner();
        let snapshots =
            named(snapshotter).and_then(|name| scope.snapshots(&name)).map_err(status)?;
        let usage = snapshots.usage(&key).await.map_err(status)?;
        Ok(Response::new(wire::usage(usage)))
    }

    async fn cleanup(&self, request: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, CleanupRequest { snapshotter }) = request.into_parts();
        let cleaned = self.0.change(&metadata, |_, scope| async move {
            scope.snapshots(&named(snapshotter)?)?.cleanup().await
        });
        cleaned.await.map(Response::new)
    }
}

/// The snapshotter that a call means. Clients choose the default themselves.
fn named(snapshotter: String) -> berth_types::Result<String> {
    match snapshotter.is_empty() {
        true => Err(Error::invalid_argument("snapshotter argument missing")),
        false => Ok(snapshotter),
    }
}

/// Labels of the wire as the snapshotter takes them.
fn sorted(labels: HashMap<String, String>) -> Labels {
    labels.into_iter().collect()
}
