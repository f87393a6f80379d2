//! `containerd.services.containers.v1.Containers`.

use tokio_stream::Iter;
use tonic::{Request, Response, Status};

use berth_proto::containerd::events::{
    ContainerCreate, ContainerDelete, ContainerUpdate, container_create,
};
use berth_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest,
    GetContainerRequest, GetContainerResponse, ListContainerMessage, ListContainersRequest,
    ListContainersResponse, UpdateContainerRequest, UpdateContainerResponse, containers_server,
};

use super::backend::Backend;
use super::status::status;

/// Records of what to run.
pub(crate) struct Containers(pub(crate) Backend);

impl Containers {
    /// The containers that a request asks for.
    fn find(&self, request: Request<ListContainersRequest>) -> Result<Vec<Container>, Status> {
        let scope = self.0.scope(request.metadata())?;
        scope.containers().list(&request.into_inner().filters).map_err(status)
    }
}

#[tonic::async_trait]
impl containers_server::Containers for Containers {
    type ListStreamStream = Iter<std::vec::IntoIter<Result<ListContainerMessage, Status>>>;

    async fn get(
        &self,
        request: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let container = scope.containers().get(&request.into_inner().id).map_err(status)?;
        Ok(Response::new(GetContainerResponse { container: Some(container) }))
    }

    async fn list(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        Ok(Response::new(ListContainersResponse { containers: self.find(request)? }))
    }

    async fn list_stream(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let message = |container| Ok(ListContainerMessage { container: Some(container) });
        let messages: Vec<_> = self.find(request)?.into_iter().map(message).collect();
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn create(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let container = request.container.unwrap_or_default();
        let created = self.0.change(&metadata, |backend, scope| async move {
            let created = scope.containers().create(container).await?;
            backend.publish(scope.namespace(), "/containers/create", &creation(created.clone()));
            Ok(created)
        });
        Ok(Response::new(CreateContainerResponse { container: Some(created.await?) }))
    }

    async fn update(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Result<Response<UpdateContainerResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let container = request.container.unwrap_or_default();
        let paths = request.update_mask.unwrap_or_default().paths;
        let updated = self.0.change(&metadata, |backend, scope| async move {
            let updated = scope.containers().update(container, paths).await?;
            let Container { id, image, labels, snapshot_key, .. } = updated.clone();
            let event = ContainerUpdate { id, image, labels, snapshot_key };
            backend.publish(scope.namespace(), "/containers/update", &event);
            Ok(updated)
        });
        Ok(Response::new(UpdateContainerResponse { container: Some(updated.await?) }))
    }

    async fn delete(
        &self,
        request: Request<DeleteContainerRequest>,
    ) -> Result<Response<()>, Status> {
        let (metadata, _, DeleteContainerRequest { id }) = request.into_parts();
        let deleted = self.0.change(&metadata, |backend, scope| async move {
            scope.containers().delete(&id).await?;
            backend.publish(scope.namespace(), "/containers/delete", &ContainerDelete { id });
            Ok(())
        });
        deleted.await.map(Response::new)
    }
}

/// The event of a new container.
fn creation(Container { id, image, runtime, .. }: Container) -> ContainerCreate {
    let runtime = runtime
        .map(|runtime| container_create::Runtime { name: runtime.name, options: runtime.options });
    ContainerCreate { id, image, runtime }
}
