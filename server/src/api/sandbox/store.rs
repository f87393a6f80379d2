//! `containerd.services.sandbox.v1.Store`.

use tonic::{Request, Response, Status};

use berth_proto::containerd::services::sandbox::v1::{
    StoreCreateRequest, StoreCreateResponse, StoreDeleteRequest, StoreDeleteResponse,
    StoreGetRequest, StoreGetResponse, StoreListRequest, StoreListResponse, StoreUpdateRequest,
    StoreUpdateResponse, store_server,
};

use super::super::backend::Backend;
use super::super::status::status;

/// Records of environments that containers share.
pub(crate) struct Store(pub(crate) Backend);

#[tonic::async_trait]
impl store_server::Store for Store {
    async fn create(
        &self,
        request: Request<StoreCreateRequest>,
    ) -> Result<Response<StoreCreateResponse>, Status> {
        let (metadata, _, StoreCreateRequest { sandbox }) = request.into_parts();
        let created = self.0.change(&metadata, |_, scope| async move {
            scope.sandboxes().create(sandbox.unwrap_or_default()).await
        });
        Ok(Response::new(StoreCreateResponse { sandbox: Some(created.await?) }))
    }

    async fn update(
        &self,
        request: Request<StoreUpdateRequest>,
    ) -> Result<Response<StoreUpdateResponse>, Status> {
        let (metadata, _, StoreUpdateRequest { sandbox, fields }) = request.into_parts();
        let updated = self.0.change(&metadata, |_, scope| async move {
            scope.sandboxes().update(sandbox.unwrap_or_default(), fields).await
        });
        Ok(Response::new(StoreUpdateResponse { sandbox: Some(updated.await?) }))
    }

    async fn delete(
        &self,
        request: Request<StoreDeleteRequest>,
    ) -> Result<Response<StoreDeleteResponse>, Status> {
        let (metadata, _, StoreDeleteRequest { sandbox_id }) = request.into_parts();
        let deleted = self.0.change(&metadata, |_, scope| async move {
            scope.sandboxes().delete(&sandbox_id).await
        });
        deleted.await.map(|()| Response::new(StoreDeleteResponse {}))
    }

    async fn list(
        &self,
        request: Request<StoreListRequest>,
    ) -> Result<Response<StoreListResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let list = scope.sandboxes().list(&request.into_inner().filters).map_err(status)?;
        Ok(Response::new(StoreListResponse { list }))
    }

    async fn get(
        &self,
        request: Request<StoreGetRequest>,
    ) -> Result<Response<StoreGetResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let sandbox = scope.sandboxes().get(&request.into_inner().sandbox_id).map_err(status)?;
        Ok(Response::new(StoreGetResponse { sandbox: Some(sandbox) }))
    }
}
