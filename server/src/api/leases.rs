//! `containerd.services.leases.v1.Leases`.

use tonic::{Request, Response, Status};

use berth_metadata::Resource as Kept;
use berth_proto::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, CreateResponse, DeleteRequest, DeleteResourceRequest, Lease,
    ListRequest, ListResourcesRequest, ListResourcesResponse, ListResponse, Resource,
    leases_server,
};

use super::backend::Backend;
use super::status::status;

/// What keeps things from garbage collection.
pub(crate) struct Leases(pub(crate) Backend);

#[tonic::async_trait]
impl leases_server::Leases for Leases {
    async fn create(
        &self,
        request: Request<CreateRequest>,
    ) -> Result<Response<CreateResponse>, Status> {
        let (metadata, _, CreateRequest { id, labels }) = request.into_parts();
        let created = self.0.change(&metadata, |_, scope| async move {
            let id = if id.is_empty() { random_id()? } else { id };
            scope.leases().create(Lease { id, labels, created_at: None }).await
        });
        Ok(Response::new(CreateResponse { lease: Some(created.await?) }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, DeleteRequest { id, sync }) = request.into_parts();
        let deleted = self.0.change(&metadata, |backend, scope| async move {
            scope.leases().delete(&id).await?;
            if sync { backend.collector.collect().await } else { Ok(()) }
        });
        deleted.await.map(Response::new)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let leases = scope.leases().list(&request.into_inner().filters).map_err(status)?;
        Ok(Response::new(ListResponse { leases }))
    }

    async fn add_resource(
        &self,
        request: Request<AddResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let (metadata, _, AddResourceRequest { id, resource }) = request.into_parts();
        let added = self.0.change(&metadata, |_, scope| async move {
            scope.leases().add_resource(&id, kept(resource)).await
        });
        added.await.map(Response::new)
    }

    async fn delete_resource(
        &self,
        request: Request<DeleteResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let (metadata, _, DeleteResourceRequest { id, resource }) = request.into_parts();
        let deleted = self.0.change(&metadata, |_, scope| async move {
            scope.leases().delete_resource(&id, kept(resource)).await
        });
        deleted.await.map(Response::new)
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let kept = scope.leases().resources(&request.into_inner().id).map_err(status)?;
        let resources =
            kept.into_iter().map(|Kept { kind, id }| Resource { r#type: kind, id }).collect();
        Ok(Response::new(ListResourcesResponse { resources }))
    }
}

/// A resource of the wire as metadata names it; none has no kind, which is refused there.
fn kept(resource: Option<Resource>) -> Kept {
    let Resource { r#type, id } = resource.unwrap_or_default();
    Kept { kind: r#type, id }
}

/// An id for a client that chooses none: unlike any other, and short enough to be typed.
fn random_id() -> berth_types::Result<String> {
    getrandom::u64().map(|random| format!("lease-{random:016x}")).map_err(|error| {
        berth_types::Error::internal(format!("no random numbers for a lease's id: {error}"))
    })
}
