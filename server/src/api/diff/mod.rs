//! `containerd.services.diff.v1.Diff`.
//!
//! Clients that unpack images themselves prepare a snapshot, have a layer applied to its mounts
//! here, and commit it. Nothing is mounted anywhere for that: a layer is written to the directory
//! that the mounts would write to, and trees to compare are detached mounts, which are gone with
//! their descriptors.

mod apply;
mod compare;
mod compress;
mod tree;

use tonic::{Request, Response, Status};

use berth_proto::containerd::services::diff::v1::{
    ApplyRequest, ApplyResponse, DiffRequest, DiffResponse, diff_server,
};

use super::backend::Backend;

/// Layers to trees, and trees to layers.
pub(crate) struct Diff(pub(crate) Backend);

#[tonic::async_trait]
impl diff_server::Diff for Diff {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let applied =
            self.0.change(&metadata, |_, scope| async move { apply::apply(&scope, request).await });
        Ok(Response::new(ApplyResponse { applied: Some(applied.await?) }))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let made = self.0.change(&metadata, |backend, scope| async move {
            compare::compare(&backend, &scope, request).await
        });
        Ok(Response::new(DiffResponse { diff: Some(made.await?) }))
    }
}
