//! `berth.v1.Images`.

use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use berth_proto::berth::v1::{
    InspectImageRequest, InspectImageResponse, ListImagesRequest, ListImagesResponse, PullProgress,
    PullRequest, RemoveImageRequest, RemoveImageResponse, TagImageRequest, TagImageResponse,
    images_server,
};

use super::{Messages, stream};
use crate::api::backend::Backend;
use crate::api::status::status;

/// Images in Docker's notation.
pub(in crate::api) struct Images(pub(in crate::api) Backend);

impl Images {
    /// The images that a call is about.
    fn of(&self, metadata: &MetadataMap) -> Result<berth_engine::Images, Status> {
        Ok(self.0.engine.images(self.0.scope(metadata)?))
    }
}

#[tonic::async_trait]
impl images_server::Images for Images {
    type PullStream = Messages<PullProgress>;

    async fn pull(
        &self,
        request: Request<PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let images = self.of(request.metadata())?;
        let request = request.into_inner();
        let pull = |client| async move { images.pull(request, client).await };
        Ok(Response::new(stream(pull, |progress| progress)))
    }

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let images = self.of(request.metadata())?;
        images.list().await.map(Response::new).map_err(status)
    }

    async fn remove(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let removed = self.0.change(&metadata, |backend, scope| async move {
            backend.engine.images(scope).remove(request).await
        });
        removed.await.map(Response::new)
    }

    async fn tag(
        &self,
        request: Request<TagImageRequest>,
    ) -> Result<Response<TagImageResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let tagged = self.0.change(&metadata, |backend, scope| async move {
            backend.engine.images(scope).tag(request).await
        });
        tagged.await.map(Response::new)
    }

    async fn inspect(
        &self,
        request: Request<InspectImageRequest>,
    ) -> Result<Response<InspectImageResponse>, Status> {
        let images = self.of(request.metadata())?;
        images.inspect(request.into_inner()).await.map(Response::new).map_err(status)
    }
}
