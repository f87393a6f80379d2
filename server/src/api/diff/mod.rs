//! `containerd.services.diff.v1.Diff`.
//!
//! Clients that unpack images themselves prepare a snapshot, have a layer applied to its mounts
//! here, and commit it. Nothing is mounted anywhere for that: a layer is written to the directory
//! that the mounts would write to, and trees to compare are detached mounts, which are gone with
//! their descriptors.

mod apply;
mod compare;
mod compress;
mod processors;
mod proxy;
mod tree;

pub(crate) use proxy::Differ;

use tonic::{Code, Request, Response, Status};

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
        let asked = request.clone();
        let applied = self.0.change(&metadata, |backend, scope| async move {
            apply::apply(&backend, &scope, request).await
        });
        let mut outcome = applied.await.map(|applied| ApplyResponse { applied: Some(applied) });
        for differ in &*self.0.differs {
            match outcome {
                Err(error) if error.code() == Code::Unimplemented => {
                    let applied = differ.apply(&metadata, asked.clone()).await;
                    outcome = applied.map(Response::into_inner);
                }
                outcome => return outcome.map(Response::new),
            }
        }
        outcome.map(Response::new)
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let asked = request.clone();
        let made = self.0.change(&metadata, |backend, scope| async move {
            compare::compare(&backend, &scope, request).await
        });
        let mut outcome = made.await.map(|made| DiffResponse { diff: Some(made) });
        for differ in &*self.0.differs {
            match outcome {
                Err(error) if error.code() == Code::Unimplemented => {
                    let made = differ.diff(&metadata, asked.clone()).await;
                    outcome = made.map(Response::into_inner);
                }
                outcome => return outcome.map(Response::new),
            }
        }
        outcome.map(Response::new)
    }
}
