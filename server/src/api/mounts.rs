//! `containerd.services.mounts.v1.Mounts`.
//!
//! Activating is for mounts that the kernel can't make by itself. berth's snapshotter makes none,
//! and no handlers can be added, so that nothing is ever active: clients then mount themselves, as
//! they do when containerd answers so.

use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use berth_proto::containerd::services::mounts::v1::{
    ActivateRequest, ActivateResponse, DeactivateRequest, InfoRequest, InfoResponse, ListMessage,
    ListRequest, UpdateRequest, UpdateResponse, mounts_server,
};
use berth_types::filter::Filter;
use berth_types::{Error, id};

use super::backend::Backend;
use super::status::status;

/// Mounts that somebody else keeps mounted: none.
pub(crate) struct Mounts(pub(crate) Backend);

#[tonic::async_trait]
impl mounts_server::Mounts for Mounts {
    type ListStream = Empty<Result<ListMessage, Status>>;

    async fn activate(
        &self,
        request: Request<ActivateRequest>,
    ) -> Result<Response<ActivateResponse>, Status> {
        self.0.scope(request.metadata())?;
        let ActivateRequest { name, mounts, .. } = request.into_inner();
        id::validate("name of an activation", &name).map_err(status)?;
        let kinds: Vec<_> = mounts.iter().map(|mount| mount.r#type.as_str()).collect();
        Err(status(Error::unimplemented(format!(
            "mounts of type {} need no activation: mount them",
            kinds.join(", ")
        ))))
    }

    async fn deactivate(
        &self,
        request: Request<DeactivateRequest>,
    ) -> Result<Response<()>, Status> {
        self.0.scope(request.metadata())?;
        Err(missing(&request.into_inner().name))
    }

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        self.0.scope(request.metadata())?;
        Err(missing(&request.into_inner().name))
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        self.0.scope(request.metadata())?;
        Err(missing(&request.into_inner().info.unwrap_or_default().name))
    }

    async fn list(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        self.0.scope(request.metadata())?;
        Filter::parse(&request.into_inner().filters).map_err(status)?;
        Ok(Response::new(tokio_stream::empty()))
    }
}

fn missing(name: &str) -> Status {
    status(Error::not_found(format!("activation {name:?}: not found")))
}
