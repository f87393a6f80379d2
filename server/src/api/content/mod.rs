//! `containerd.services.content.v1.Content`.

mod read;
mod write;

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use berth_content::Status as Progress;
use berth_proto::containerd::events::ContentDelete;
use berth_proto::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
    ReadContentResponse, Status as Ingest, StatusRequest, StatusResponse, UpdateRequest,
    UpdateResponse, WriteContentRequest, WriteContentResponse, content_server,
};
use berth_types::{Digest, Result as Outcome};

use super::backend::Backend;
use super::status::status;

/// Records in one message of a list.
const BATCH: usize = 100;

/// A stream of responses.
type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Blobs and ingests.
pub(crate) struct Content(pub(crate) Backend);

#[tonic::async_trait]
impl content_server::Content for Content {
    type ListStream = Responses<ListContentResponse>;
    type ReadStream = Responses<ReadContentResponse>;
    type WriteStream = Responses<WriteContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let digest = parse(&request.into_inner().digest).map_err(status)?;
        let info = scope.content().info(&digest).map_err(status)?;
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        let (metadata, _, UpdateRequest { info, update_mask }) = request.into_parts();
        let info = info.unwrap_or_default();
        let paths = update_mask.unwrap_or_default().paths;
        let updated = self.0.change(&metadata, |_, scope| async move {
            parse(&info.digest)?;
            scope.content().update(info, paths).await
        });
        Ok(Response::new(UpdateResponse { info: Some(updated.await?) }))
    }

    async fn list(
        &self,
        request: Request<ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let infos = scope.content().list(&request.into_inner().filters).map_err(status)?;
        let messages: Vec<_> = infos
            .chunks(BATCH)
            .map(|batch| Ok(ListContentResponse { info: batch.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, DeleteContentRequest { digest }) = request.into_parts();
        let deleted = self.0.change(&metadata, |backend, scope| async move {
            scope.content().delete(&parse(&digest)?).await?;
            backend.publish(scope.namespace(), "/content/delete", &ContentDelete { digest });
            Ok(())
        });
        deleted.await.map(Response::new)
    }

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let request = request.into_inner();
        let digest = parse(&request.digest).map_err(status)?;
        let reader = scope.content().reader(&digest).map_err(status)?;
        let range = read::range(request.offset, request.size, reader.size).map_err(status)?;
        Ok(Response::new(Box::pin(read::stream(reader.file, range))))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let found = scope.content().status(&request.into_inner().r#ref).map_err(status)?;
        Ok(Response::new(StatusResponse { status: Some(ingest(found)) }))
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let found = scope.content().statuses(&request.into_inner().filters).map_err(status)?;
        let statuses = found.into_iter().map(ingest).collect();
        Ok(Response::new(ListStatusesResponse { statuses }))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let responses = write::serve(self.0.clone(), scope, request.into_inner());
        Ok(Response::new(Box::pin(responses)))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, AbortRequest { r#ref }) = request.into_parts();
        let aborted =
            self.0.change(&metadata, |_, scope| async move { scope.content().abort(&r#ref).await });
        aborted.await.map(Response::new)
    }
}

/// A digest of the wire.
///
/// # Errors
/// `InvalidArgument`.
fn parse(digest: &str) -> Outcome<Digest> {
    digest.parse()
}

/// An ingest as the wire has it.
fn ingest(progress: Progress) -> Ingest {
    Ingest {
        started_at: Some(progress.started.into()),
        updated_at: Some(progress.updated.into()),
        r#ref: progress.reference,
        offset: number(progress.offset),
        total: number(progress.total),
        expected: String::new(),
    }
}

/// A count of bytes as the wire has it.
fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
