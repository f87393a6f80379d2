//! `containerd.services.namespaces.v1.Namespaces`.

use tonic::{Request, Response, Status};

use berth_proto::containerd::events::{NamespaceCreate, NamespaceDelete, NamespaceUpdate};
use berth_proto::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, CreateNamespaceResponse, DeleteNamespaceRequest, GetNamespaceRequest,
    GetNamespaceResponse, ListNamespacesRequest, ListNamespacesResponse, Namespace,
    UpdateNamespaceRequest, UpdateNamespaceResponse, namespaces_server,
};

use super::backend::Backend;
use super::status::status;

/// The tenants. Calls name the one they are about themselves, so the metadata need not.
pub(crate) struct Namespaces(pub(crate) Backend);

#[tonic::async_trait]
impl namespaces_server::Namespaces for Namespaces {
    async fn get(
        &self,
        request: Request<GetNamespaceRequest>,
    ) -> Result<Response<GetNamespaceResponse>, Status> {
        let name = request.into_inner().name;
        let namespace = self.0.metadata.namespaces().get(&name).map_err(status)?;
        Ok(Response::new(GetNamespaceResponse { namespace: Some(namespace) }))
    }

    async fn list(
        &self,
        _: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        let namespaces = self.0.metadata.namespaces().list().map_err(status)?;
        Ok(Response::new(ListNamespacesResponse { namespaces }))
    }

    async fn create(
        &self,
        request: Request<CreateNamespaceRequest>,
    ) -> Result<Response<CreateNamespaceResponse>, Status> {
        let namespace = request.into_inner().namespace.unwrap_or_default();
        let backend = self.0.clone();
        let created = async move {
            let created = backend.metadata.namespaces().create(namespace).await?;
            let Namespace { name, labels } = created.clone();
            let event = NamespaceCreate { name, labels };
            backend.publish(&event.name, "/namespaces/create", &event);
            Ok(created)
        };
        let namespace = self.0.operations.run(created).await.map_err(status)?;
        Ok(Response::new(CreateNamespaceResponse { namespace: Some(namespace) }))
    }

    async fn update(
        &self,
        request: Request<UpdateNamespaceRequest>,
    ) -> Result<Response<UpdateNamespaceResponse>, Status> {
        let UpdateNamespaceRequest { namespace, update_mask } = request.into_inner();
        let (namespace, paths) =
            (namespace.unwrap_or_default(), update_mask.unwrap_or_default().paths);
        let backend = self.0.clone();
        let updated = async move {
            // As containerd's, the event has the labels of the request.
            let Namespace { name, labels } = namespace.clone();
            let event = NamespaceUpdate { name, labels };
            let updated = backend.metadata.namespaces().update(namespace, paths).await?;
            backend.publish(&event.name, "/namespaces/update", &event);
            Ok(updated)
        };
        let namespace = self.0.operations.run(updated).await.map_err(status)?;
        Ok(Response::new(UpdateNamespaceResponse { namespace: Some(namespace) }))
    }

    async fn delete(
        &self,
        request: Request<DeleteNamespaceRequest>,
    ) -> Result<Response<()>, Status> {
        let name = request.into_inner().name;
        let backend = self.0.clone();
        let deleted = async move {
            backend.metadata.namespaces().delete(&name).await?;
            let event = NamespaceDelete { name };
            backend.publish(&event.name, "/namespaces/delete", &event);
            Ok(())
        };
        self.0.operations.run(deleted).await.map(Response::new).map_err(status)
    }
}
