//! `containerd.services.tasks.v1.Tasks`: the tasks of containers, as stock clients drive them.

mod create;
mod metrics;
mod process;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use berth_proto::containerd::services::tasks::v1::{
    CheckpointTaskRequest, CheckpointTaskResponse, CloseIoRequest, CreateTaskRequest,
    CreateTaskResponse, DeleteProcessRequest, DeleteResponse, DeleteTaskRequest,
    ExecProcessRequest, GetRequest, GetResponse, KillRequest, ListPidsRequest, ListPidsResponse,
    ListTasksRequest, ListTasksResponse, MetricsRequest, MetricsResponse, PauseTaskRequest,
    ResizePtyRequest, ResumeTaskRequest, StartRequest, StartResponse, UpdateTaskRequest,
    WaitRequest, WaitResponse, tasks_server,
};
use berth_proto::containerd::task::v3;
use berth_tasks::Task;
use berth_types::Error;
use tonic::metadata::MetadataMap;

use super::backend::Backend;
use super::status::status;

/// What runs. Everything is asked of the shims; see `berth_tasks`.
pub(crate) struct Tasks(pub(crate) Backend);

impl Tasks {
    /// The task that a call is about.
    fn find(&self, metadata: &MetadataMap, id: &str) -> Result<Arc<Task>, Status> {
        let scope = self.0.scope(metadata)?;
        self.0.tasks.get(scope.namespace(), id).map_err(status)
    }

    /// Asks the task that a call is about to do something, which it does even when the caller is
    /// gone.
    async fn ask<T, F>(
        &self,
        metadata: &MetadataMap,
        id: &str,
        what: impl FnOnce(Arc<Task>) -> F,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = berth_types::Result<T>> + Send + 'static,
    {
        let task = self.find(metadata, id)?;
        self.0.operations.run(what(task)).await.map_err(status)
    }
}

#[tonic::async_trait]
impl tasks_server::Tasks for Tasks {
    async fn create(
        &self,
        request: Request<CreateTaskRequest>,
    ) -> Result<Response<CreateTaskResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let created = self
            .0
            .change(&metadata, |backend, scope| create::create(backend.tasks, scope, request));
        created.await.map(Response::new)
    }

    async fn start(
        &self,
        request: Request<StartRequest>,
    ) -> Result<Response<StartResponse>, Status> {
        let (metadata, _, StartRequest { container_id, exec_id }) = request.into_parts();
        let start = |task: Arc<Task>| async move { task.start(&exec_id).await };
        let pid = self.ask(&metadata, &container_id, start).await?;
        Ok(Response::new(StartResponse { pid }))
    }

    async fn delete(
        &self,
        request: Request<DeleteTaskRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let (metadata, _, DeleteTaskRequest { container_id }) = request.into_parts();
        let deleted = self.0.change(&metadata, |backend, scope| async move {
            let ended = backend.tasks.delete(scope.namespace(), &container_id).await?;
            // As containerd leaves it: the init.
            Ok(ending(String::new(), ended))
        });
        deleted.await.map(Response::new)
    }

    async fn delete_process(
        &self,
        request: Request<DeleteProcessRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let (metadata, _, DeleteProcessRequest { container_id, exec_id }) = request.into_parts();
        let delete = |task: Arc<Task>| async move {
            let ended = task.delete_process(&exec_id).await?;
            Ok(ending(exec_id, ended))
        };
        self.ask(&metadata, &container_id, delete).await.map(Response::new)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (metadata, _, GetRequest { container_id, exec_id }) = request.into_parts();
        let task = self.find(&metadata, &container_id)?;
        let state = task.state(&exec_id).await.map_err(status)?;
        let process = process::to_wire(container_id, exec_id, state);
        Ok(Response::new(GetResponse { process: Some(process) }))
    }

    async fn list(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let tasks = process::list(self.0.tasks.list(scope.namespace())).await;
        Ok(Response::new(ListTasksResponse { tasks }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, request) = request.into_parts();
        let KillRequest { container_id, exec_id, signal, all } = request;
        let kill = |task: Arc<Task>| async move { task.kill(&exec_id, signal, all).await };
        self.ask(&metadata, &container_id, kill).await.map(Response::new)
    }

    async fn exec(&self, request: Request<ExecProcessRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, request) = request.into_parts();
        if request.exec_id.is_empty() {
            return Err(status(Error::invalid_argument("exec id cannot be empty")));
        }
        let container_id = request.container_id.clone();
        let request = v3::ExecProcessRequest {
            id: request.container_id,
            exec_id: request.exec_id,
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            spec: request.spec,
        };
        let exec = |task: Arc<Task>| async move { task.exec(request).await };
        self.ask(&metadata, &container_id, exec).await.map(Response::new)
    }

    async fn resize_pty(&self, request: Request<ResizePtyRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, request) = request.into_parts();
        let ResizePtyRequest { container_id, exec_id, width, height } = request;
        let resize =
            |task: Arc<Task>| async move { task.resize_pty(&exec_id, width, height).await };
        self.ask(&metadata, &container_id, resize).await.map(Response::new)
    }

    async fn close_io(&self, request: Request<CloseIoRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, request) = request.into_parts();
        let CloseIoRequest { container_id, exec_id, stdin } = request;
        let task = self.find(&metadata, &container_id)?;
        if !stdin {
            return Ok(Response::new(()));
        }
        let close = async move { task.close_io(&exec_id).await };
        self.0.operations.run(close).await.map(Response::new).map_err(status)
    }

    async fn pause(&self, request: Request<PauseTaskRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, PauseTaskRequest { container_id }) = request.into_parts();
        let pause = |task: Arc<Task>| async move { task.pause().await };
        self.ask(&metadata, &container_id, pause).await.map(Response::new)
    }

    async fn resume(&self, request: Request<ResumeTaskRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, ResumeTaskRequest { container_id }) = request.into_parts();
        let resume = |task: Arc<Task>| async move { task.resume().await };
        self.ask(&metadata, &container_id, resume).await.map(Response::new)
    }

    async fn list_pids(
        &self,
        request: Request<ListPidsRequest>,
    ) -> Result<Response<ListPidsResponse>, Status> {
        let (metadata, _, ListPidsRequest { container_id }) = request.into_parts();
        let task = self.find(&metadata, &container_id)?;
        let processes = task.pids().await.map_err(status)?;
        Ok(Response::new(ListPidsResponse { processes }))
    }

    async fn checkpoint(
        &self,
        request: Request<CheckpointTaskRequest>,
    ) -> Result<Response<CheckpointTaskResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.find(&metadata, &request.container_id)?;
        Err(status(Error::unimplemented("checkpoints are not supported")))
    }

    async fn update(&self, request: Request<UpdateTaskRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, request) = request.into_parts();
        let UpdateTaskRequest { container_id, resources, annotations } = request;
        let update = |task: Arc<Task>| async move { task.update(resources, annotations).await };
        self.ask(&metadata, &container_id, update).await.map(Response::new)
    }

    async fn metrics(
        &self,
        request: Request<MetricsRequest>,
    ) -> Result<Response<MetricsResponse>, Status> {
        let (metadata, _, MetricsRequest { filters }) = request.into_parts();
        let scope = self.0.scope(&metadata)?;
        let tasks = self.0.tasks.list(scope.namespace());
        let metrics = metrics::collect(tasks, &filters).await.map_err(status)?;
        Ok(Response::new(MetricsResponse { metrics }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let (metadata, _, WaitRequest { container_id, exec_id }) = request.into_parts();
        let task = self.find(&metadata, &container_id)?;
        let exit = task.wait(&exec_id).await.map_err(status)?;
        Ok(Response::new(WaitResponse { exit_status: exit.status, exited_at: exit.at }))
    }
}

/// How the process `id` ended, as the wire has it.
fn ending(id: String, ended: v3::DeleteResponse) -> DeleteResponse {
    let v3::DeleteResponse { pid, exit_status, exited_at } = ended;
    DeleteResponse { id, pid, exit_status, exited_at }
}
