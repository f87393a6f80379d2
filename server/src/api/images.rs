//! `containerd.services.images.v1.Images`.

use tonic::{Request, Response, Status};

use berth_proto::containerd::services::images::v1::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, GetImageRequest, GetImageResponse,
    Image, ImageCreate, ImageDelete, ImageUpdate, ListImagesRequest, ListImagesResponse,
    UpdateImageRequest, UpdateImageResponse, images_server,
};

use berth_types::Kind;

use super::backend::Backend;
use super::status::status;
use crate::embedded;

/// Names that point at content.
pub(crate) struct Images(pub(crate) Backend);

#[tonic::async_trait]
impl images_server::Images for Images {
    /// The image that berth carries is made when it is first asked for.
    async fn get(
        &self,
        request: Request<GetImageRequest>,
    ) -> Result<Response<GetImageResponse>, Status> {
        let (metadata, _, GetImageRequest { name }) = request.into_parts();
        let scope = self.0.scope(&metadata)?;
        let image = match scope.images().get(&name) {
            Err(error) if error.kind() == Kind::NotFound && name == embedded::NAME => {
                let made = self.0.change(&metadata, |backend, scope| async move {
                    embedded::ensure(&backend.puller, &scope).await
                });
                made.await?;
                scope.images().get(&name)
            }
            found => found,
        };
        Ok(Response::new(GetImageResponse { image: Some(image.map_err(status)?) }))
    }

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let images = scope.images().list(&request.into_inner().filters).map_err(status)?;
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn create(
        &self,
        request: Request<CreateImageRequest>,
    ) -> Result<Response<CreateImageResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let image = request.image.unwrap_or_default();
        let created = self.0.change(&metadata, |backend, scope| async move {
            let created = scope.images().create(image).await?;
            let Image { name, labels, .. } = created.clone();
            backend.publish(scope.namespace(), "/images/create", &ImageCreate { name, labels });
            Ok(created)
        });
        Ok(Response::new(CreateImageResponse { image: Some(created.await?) }))
    }

    async fn update(
        &self,
        request: Request<UpdateImageRequest>,
    ) -> Result<Response<UpdateImageResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let image = request.image.unwrap_or_default();
        let paths = request.update_mask.unwrap_or_default().paths;
        let updated = self.0.change(&metadata, |backend, scope| async move {
            let updated = scope.images().update(image, paths).await?;
            let Image { name, labels, .. } = updated.clone();
            backend.publish(scope.namespace(), "/images/update", &ImageUpdate { name, labels });
            Ok(updated)
        });
        Ok(Response::new(UpdateImageResponse { image: Some(updated.await?) }))
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, request) = request.into_parts();
        let DeleteImageRequest { name, sync, target } = request;
        let deleted = self.0.change(&metadata, |backend, scope| async move {
            let target = target.map(|target| target.digest.parse()).transpose()?;
            scope.images().delete(&name, target).await?;
            backend.publish(scope.namespace(), "/images/delete", &ImageDelete { name });
            if sync { backend.collector.collect().await } else { Ok(()) }
        });
        deleted.await.map(Response::new)
    }
}
