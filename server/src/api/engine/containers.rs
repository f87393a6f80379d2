//! `berth.v1.Containers`.

use tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use berth_engine::Attached;
use berth_proto::berth::v1::stream_request::Message;
use berth_proto::berth::v1::{
    CreateRequest, CreateResponse, InspectRequest, InspectResponse, KillRequest, KillResponse,
    ListRequest, ListResponse, LogEntry, LogsRequest, PauseRequest, PauseResponse, RemoveRequest,
    RemoveResponse, RenameRequest, RenameResponse, RestartRequest, RestartResponse, StartRequest,
    StartResponse, StopRequest, StopResponse, StreamRequest, StreamResponse, TopRequest,
    TopResponse, UnpauseRequest, UnpauseResponse, WaitRequest, WaitResponse, containers_server,
    stream_response,
};
use berth_types::{Error, Result};

use super::{Messages, stream};
use crate::api::backend::Backend;
use crate::api::status::status;

/// Containers by name or id.
pub(in crate::api) struct Containers(pub(in crate::api) Backend);

impl Containers {
    /// The containers that a call is about.
    fn of(&self, metadata: &MetadataMap) -> Result<berth_engine::Containers, Status> {
        Ok(self.0.engine.containers(self.0.scope(metadata)?))
    }

    /// Runs a change to its end, whoever still waits for it.
    async fn change<T, F>(
        &self,
        metadata: &MetadataMap,
        change: impl FnOnce(berth_engine::Containers) -> F,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let change = |backend: Backend, scope| change(backend.engine.containers(scope));
        self.0.change(metadata, change).await.map(Response::new)
    }
}

/// The first message of a stream, which says what it is about.
async fn first(requests: &mut Streaming<StreamRequest>) -> Result<Option<Message>, Status> {
    Ok(requests.message().await?.and_then(|request| request.message))
}

fn wrong_start(expected: &str) -> Status {
    status(Error::invalid_argument(format!("the first message must be {expected:?}")))
}

/// Streams an attached process. What the client sends ends when it is gone.
fn carry(attached: Attached, requests: Streaming<StreamRequest>) -> Messages<StreamResponse> {
    let requests = requests.map_while(Result::ok).filter_map(|request| request.message);
    let requests = Box::pin(requests);
    stream(|responses| attached.carry(requests, responses), wrap)
}

fn wrap(message: stream_response::Message) -> StreamResponse {
    StreamResponse { message: Some(message) }
}

#[tonic::async_trait]
impl containers_server::Containers for Containers {
    type RunStream = Messages<StreamResponse>;
    type AttachStream = Messages<StreamResponse>;
    type ExecStream = Messages<StreamResponse>;
    type LogsStream = Messages<LogEntry>;

    async fn run(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::RunStream>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        let Some(Message::Run(options)) = first(&mut requests).await? else {
            return Err(wrong_start("run"));
        };
        let containers = self.of(&metadata)?;
        let operations = self.0.operations.clone();
        let requests = requests.map_while(Result::ok).filter_map(|request| request.message);
        let requests = Box::pin(requests);
        let run = |responses: tokio::sync::mpsc::Sender<_>| async move {
            let client = responses.clone();
            let run = operations.run(async move { containers.run(options, client).await });
            run.await?.carry(requests, responses).await
        };
        Ok(Response::new(stream(run, wrap)))
    }

    async fn create(
        &self,
        request: Request<CreateRequest>,
    ) -> Result<Response<CreateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let create = |all: berth_engine::Containers| async move { all.create(request).await };
        self.change(&metadata, create).await
    }

    async fn start(
        &self,
        request: Request<StartRequest>,
    ) -> Result<Response<StartResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.change(&metadata, |all| async move { all.start(request).await }).await
    }

    async fn attach(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        let Some(Message::Attach(options)) = first(&mut requests).await? else {
            return Err(wrong_start("attach"));
        };
        let attached = self.change(&metadata, |all| async move { all.attach(options).await });
        let attached = attached.await?.into_inner();
        Ok(Response::new(carry(attached, requests)))
    }

    async fn exec(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let (metadata, _, mut requests) = request.into_parts();
        let Some(Message::Exec(options)) = first(&mut requests).await? else {
            return Err(wrong_start("exec"));
        };
        let attached = self.change(&metadata, |all| async move { all.exec(options).await });
        let attached = attached.await?.into_inner();
        Ok(Response::new(carry(attached, requests)))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.change(&metadata, |all| async move { all.stop(request).await }).await
    }

    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<KillResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.change(&metadata, |all| async move { all.kill(request).await }).await
    }

    async fn restart(
        &self,
        request: Request<RestartRequest>,
    ) -> Result<Response<RestartResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.change(&metadata, |all| async move { all.restart(request).await }).await
    }

    async fn pause(
        &self,
        request: Request<PauseRequest>,
    ) -> Result<Response<PauseResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.change(&metadata, |all| async move { all.pause(request).await }).await
    }

    async fn unpause(
        &self,
        request: Request<UnpauseRequest>,
    ) -> Result<Response<UnpauseResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.change(&metadata, |all| async move { all.unpause(request).await }).await
    }

    async fn rename(
        &self,
        request: Request<RenameRequest>,
    ) -> Result<Response<RenameResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.change(&metadata, |all| async move { all.rename(request).await }).await
    }

    async fn top(&self, request: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        let containers = self.of(request.metadata())?;
        containers.top(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.change(&metadata, |all| async move { all.remove(request).await }).await
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let containers = self.of(request.metadata())?;
        containers.wait(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let containers = self.of(request.metadata())?;
        containers.list(request.into_inner()).map(Response::new).map_err(status)
    }

    async fn inspect(
        &self,
        request: Request<InspectRequest>,
    ) -> Result<Response<InspectResponse>, Status> {
        let containers = self.of(request.metadata())?;
        containers.inspect(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn logs(
        &self,
        request: Request<LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let containers = self.of(request.metadata())?;
        let entries = containers.logs(request.into_inner()).map_err(status)?;
        let copy = |client| async move { entries.copy(&client).await };
        Ok(Response::new(stream(copy, |entry| entry)))
    }
}
