//! `containerd.services.sandbox.v1.Controller`.

use std::time::SystemTime;

use tonic::{Request, Response, Status};

use berth_metadata::Scope;
use berth_proto::containerd::services::sandbox::v1::{
    ControllerCreateRequest, ControllerCreateResponse, ControllerMetricsRequest,
    ControllerMetricsResponse, ControllerPlatformRequest, ControllerPlatformResponse,
    ControllerShutdownRequest, ControllerShutdownResponse, ControllerStartRequest,
    ControllerStartResponse, ControllerStatusRequest, ControllerStatusResponse,
    ControllerStopRequest, ControllerStopResponse, ControllerUpdateRequest,
    ControllerUpdateResponse, ControllerWaitRequest, ControllerWaitResponse, controller_server,
};
use berth_tasks::CreateSandbox;
use berth_types::{Error, Kind, Result};

use super::super::backend::Backend;
use super::super::status::status;

/// The only controller: it leaves sandboxes to the shims of their runtimes.
const SHIM: &str = "shim";

/// Environments that containers share, as they run.
pub(crate) struct Controller(pub(crate) Backend);

#[tonic::async_trait]
impl controller_server::Controller for Controller {
    async fn create(
        &self,
        request: Request<ControllerCreateRequest>,
    ) -> Result<Response<ControllerCreateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        known(&request.sandboxer)?;
        let created = self.0.change(&metadata, |backend, scope| async move {
            let sandbox = backend.tasks.create_sandbox(describe(&scope, request)?).await?;
            Ok(ControllerCreateResponse { sandbox_id: sandbox.id().to_owned() })
        });
        created.await.map(Response::new)
    }

    async fn start(
        &self,
        request: Request<ControllerStartRequest>,
    ) -> Result<Response<ControllerStartResponse>, Status> {
        let (metadata, _, ControllerStartRequest { sandbox_id, sandboxer }) = request.into_parts();
        known(&sandboxer)?;
        let started = self.0.change(&metadata, |backend, scope| async move {
            let namespace = scope.namespace();
            let (address, version) = backend.tasks.sandbox(namespace, &sandbox_id)?.endpoint();
            let started = backend.tasks.start_sandbox(namespace, &sandbox_id).await?;
            let (pid, created_at) = (started.pid, started.created_at);
            let labels = Default::default();
            Ok(ControllerStartResponse { sandbox_id, pid, created_at, labels, address, version })
        });
        started.await.map(Response::new)
    }

    async fn platform(
        &self,
        request: Request<ControllerPlatformRequest>,
    ) -> Result<Response<ControllerPlatformResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let ControllerPlatformRequest { sandbox_id, sandboxer } = request.into_inner();
        known(&sandboxer)?;
        let sandbox = self.0.tasks.sandbox(scope.namespace(), &sandbox_id).map_err(status)?;
        let platform = sandbox.platform().await.map_err(status)?;
        Ok(Response::new(ControllerPlatformResponse { platform }))
    }

    async fn stop(
        &self,
        request: Request<ControllerStopRequest>,
    ) -> Result<Response<ControllerStopResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        known(&request.sandboxer)?;
        let stopped = self.0.change(&metadata, |backend, scope| async move {
            match backend.tasks.sandbox(scope.namespace(), &request.sandbox_id) {
                Ok(sandbox) => sandbox.stop(request.timeout_secs).await,
                // What is not there is stopped.
                Err(error) if error.kind() == Kind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        });
        stopped.await.map(|()| Response::new(ControllerStopResponse {}))
    }

    async fn wait(
        &self,
        request: Request<ControllerWaitRequest>,
    ) -> Result<Response<ControllerWaitResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let ControllerWaitRequest { sandbox_id, sandboxer } = request.into_inner();
        known(&sandboxer)?;
        let exit = self.0.tasks.wait_sandbox(scope.namespace(), &sandbox_id).await;
        let exit = exit.map_err(status)?;
        let (exit_status, exited_at) = (exit.status, exit.at);
        Ok(Response::new(ControllerWaitResponse { exit_status, exited_at }))
    }

    async fn status(
        &self,
        request: Request<ControllerStatusRequest>,
    ) -> Result<Response<ControllerStatusResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let ControllerStatusRequest { sandbox_id, verbose, sandboxer } = request.into_inner();
        known(&sandboxer)?;
        let sandbox = match self.0.tasks.sandbox(scope.namespace(), &sandbox_id) {
            // As containerd's: what is not there has ended.
            Err(error) if error.kind() == Kind::NotFound => {
                return Ok(Response::new(ended(sandbox_id)));
            }
            sandbox => sandbox.map_err(status)?,
        };
        let state = sandbox.status(verbose).await.map_err(status)?;
        let (address, version) = sandbox.endpoint();
        Ok(Response::new(ControllerStatusResponse {
            sandbox_id: state.sandbox_id,
            pid: state.pid,
            state: state.state,
            info: state.info,
            created_at: state.created_at,
            exited_at: state.exited_at,
            extra: state.extra,
            address,
            version,
        }))
    }

    async fn shutdown(
        &self,
        request: Request<ControllerShutdownRequest>,
    ) -> Result<Response<ControllerShutdownResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        known(&request.sandboxer)?;
        let ended = self.0.change(&metadata, |backend, scope| async move {
            backend.tasks.shut_down_sandbox(scope.namespace(), &request.sandbox_id).await
        });
        ended.await.map(|()| Response::new(ControllerShutdownResponse {}))
    }

    async fn metrics(
        &self,
        request: Request<ControllerMetricsRequest>,
    ) -> Result<Response<ControllerMetricsResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let ControllerMetricsRequest { sandbox_id, sandboxer } = request.into_inner();
        known(&sandboxer)?;
        let sandbox = self.0.tasks.sandbox(scope.namespace(), &sandbox_id).map_err(status)?;
        let metrics = sandbox.metrics().await.map_err(status)?;
        Ok(Response::new(ControllerMetricsResponse { metrics }))
    }

    /// Shims have no call for it: as in containerd, nothing comes of it.
    async fn update(
        &self,
        request: Request<ControllerUpdateRequest>,
    ) -> Result<Response<ControllerUpdateResponse>, Status> {
        self.0.scope(request.metadata())?;
        let request = request.into_inner();
        known(&request.sandboxer)?;
        if request.sandbox.is_none() {
            return Err(status(Error::invalid_argument("the update names no sandbox")));
        }
        Ok(Response::new(ControllerUpdateResponse {}))
    }
}

/// Checks the name of the controller.
fn known(sandboxer: &str) -> Result<(), Status> {
    match sandboxer {
        SHIM => Ok(()),
        "" => Err(Error::invalid_argument(
            "the request names no sandbox controller: there is one, \"shim\"",
        )),
        other => Err(Error::not_found(format!(
            "sandbox controller {other:?} is not here: there is one, \"shim\""
        ))),
    }
    .map_err(status)
}

/// What a request asks for. Clients that say nothing of the sandbox but its id have put it into
/// the store.
fn describe(scope: &Scope, request: ControllerCreateRequest) -> Result<CreateSandbox> {
    let sandbox = match request.sandbox {
        Some(sandbox) => sandbox,
        None => scope.sandboxes().get(&request.sandbox_id)?,
    };
    let runtime = sandbox.runtime.unwrap_or_default();
    Ok(CreateSandbox {
        namespace: scope.namespace().to_owned(),
        id: request.sandbox_id,
        runtime: runtime.name,
        runtime_options: runtime.options,
        spec: sandbox.spec.unwrap_or_default().value,
        rootfs: request.rootfs,
        options: request.options.filter(|options| !options.type_url.is_empty()),
        netns: request.netns_path,
        annotations: request.annotations,
    })
}

fn ended(sandbox_id: String) -> ControllerStatusResponse {
    let exited_at = Some(SystemTime::now().into());
    ControllerStatusResponse { sandbox_id, exited_at, ..Default::default() }
}
