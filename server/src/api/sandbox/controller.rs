//! `containerd.services.sandbox.v1.Controller`.

use std::time::SystemTime;

use tonic::{Request, Response, Status};

use berth_metadata::Scope;
use berth_proto::containerd::events::{SandboxCreate, SandboxExit, SandboxStart};
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
use super::Sandboxer;

/// The controller that is built in: it leaves sandboxes to the shims of their runtimes.
const SHIM: &str = "shim";

/// Environments that containers share, as they run.
pub(crate) struct Controller(pub(crate) Backend);

impl Controller {
    /// The controller called `name` of another process, or `None` for our own.
    fn other(&self, name: &str) -> Result<Option<&Sandboxer>, Status> {
        let others = &self.0.sandboxers;
        if name == SHIM {
            return Ok(None);
        }
        if let Some(other) = others.iter().find(|other| other.name() == name) {
            return Ok(Some(other));
        }
        let names = others.iter().map(Sandboxer::name);
        let names = [SHIM].into_iter().chain(names).collect::<Vec<_>>().join(", ");
        Err(status(match name {
            "" => Error::invalid_argument(format!(
                "the request names no sandbox controller: there is {names}"
            )),
            _ => Error::not_found(format!(
                "sandbox controller {name:?} is not here: there is {names}"
            )),
        }))
    }
}

#[tonic::async_trait]
impl controller_server::Controller for Controller {
    async fn create(
        &self,
        request: Request<ControllerCreateRequest>,
    ) -> Result<Response<ControllerCreateResponse>, Status> {
        let (metadata, _, mut request) = request.into_parts();
        if let Some(other) = self.other(&request.sandboxer)? {
            let scope = self.0.scope(&metadata)?;
            if request.sandbox.is_none() {
                request.sandbox = scope.sandboxes().get(&request.sandbox_id).ok();
            }
            let event = SandboxCreate { sandbox_id: request.sandbox_id.clone() };
            let created = other.client().create(other.request(&metadata, request)).await;
            let created = other.named(created)?;
            self.0.publish(scope.namespace(), "/sandboxes/create", &event);
            return Ok(Response::new(created));
        }
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
        let (metadata, _, request) = request.into_parts();
        if let Some(other) = self.other(&request.sandboxer)? {
            let scope = self.0.scope(&metadata)?;
            let event = SandboxStart { sandbox_id: request.sandbox_id.clone() };
            let started = other.client().start(other.request(&metadata, request)).await;
            let started = other.named(started)?;
            self.0.publish(scope.namespace(), "/sandboxes/start", &event);
            return Ok(Response::new(started));
        }
        let sandbox_id = request.sandbox_id;
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
        let (metadata, _, request) = request.into_parts();
        let scope = self.0.scope(&metadata)?;
        if let Some(other) = self.other(&request.sandboxer)? {
            let told = other.client().platform(other.request(&metadata, request)).await;
            return other.named(told).map(Response::new);
        }
        let sandbox_id = request.sandbox_id;
        let sandbox = self.0.tasks.sandbox(scope.namespace(), &sandbox_id).map_err(status)?;
        let platform = sandbox.platform().await.map_err(status)?;
        Ok(Response::new(ControllerPlatformResponse { platform }))
    }

    async fn stop(
        &self,
        request: Request<ControllerStopRequest>,
    ) -> Result<Response<ControllerStopResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        if let Some(other) = self.other(&request.sandboxer)? {
            self.0.scope(&metadata)?;
            let stopped = other.client().stop(other.request(&metadata, request)).await;
            return other.named(stopped).map(Response::new);
        }
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
        let (metadata, _, request) = request.into_parts();
        let scope = self.0.scope(&metadata)?;
        let sandbox_id = request.sandbox_id.clone();
        if let Some(other) = self.other(&request.sandboxer)? {
            let ended = other.client().wait(other.waiting(&metadata, request)).await;
            let ended = other.named(ended)?;
            let (exit_status, exited_at) = (ended.exit_status, ended.exited_at);
            let event = SandboxExit { sandbox_id, exit_status, exited_at };
            self.0.publish(scope.namespace(), "/sandboxes/exit", &event);
            return Ok(Response::new(ended));
        }
        let exit = self.0.tasks.wait_sandbox(scope.namespace(), &sandbox_id).await;
        let exit = exit.map_err(status)?;
        let (exit_status, exited_at) = (exit.status, exit.at);
        Ok(Response::new(ControllerWaitResponse { exit_status, exited_at }))
    }

    async fn status(
        &self,
        request: Request<ControllerStatusRequest>,
    ) -> Result<Response<ControllerStatusResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let scope = self.0.scope(&metadata)?;
        if let Some(other) = self.other(&request.sandboxer)? {
            let told = other.client().status(other.request(&metadata, request)).await;
            return other.named(told).map(Response::new);
        }
        let ControllerStatusRequest { sandbox_id, verbose, .. } = request;
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
        if let Some(other) = self.other(&request.sandboxer)? {
            self.0.scope(&metadata)?;
            let ended = other.client().shutdown(other.request(&metadata, request)).await;
            return other.named(ended).map(Response::new);
        }
        let ended = self.0.change(&metadata, |backend, scope| async move {
            backend.tasks.shut_down_sandbox(scope.namespace(), &request.sandbox_id).await
        });
        ended.await.map(|()| Response::new(ControllerShutdownResponse {}))
    }

    async fn metrics(
        &self,
        request: Request<ControllerMetricsRequest>,
    ) -> Result<Response<ControllerMetricsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let scope = self.0.scope(&metadata)?;
        if let Some(other) = self.other(&request.sandboxer)? {
            let told = other.client().metrics(other.request(&metadata, request)).await;
            return other.named(told).map(Response::new);
        }
        let sandbox_id = request.sandbox_id;
        let sandbox = self.0.tasks.sandbox(scope.namespace(), &sandbox_id).map_err(status)?;
        let metrics = sandbox.metrics().await.map_err(status)?;
        Ok(Response::new(ControllerMetricsResponse { metrics }))
    }

    /// Shims have no call for it: as in containerd, nothing comes of it.
    async fn update(
        &self,
        request: Request<ControllerUpdateRequest>,
    ) -> Result<Response<ControllerUpdateResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.0.scope(&metadata)?;
        if let Some(other) = self.other(&request.sandboxer)? {
            let updated = other.client().update(other.request(&metadata, request)).await;
            return other.named(updated).map(Response::new);
        }
        if request.sandbox.is_none() {
            return Err(status(Error::invalid_argument("the update names no sandbox")));
        }
        Ok(Response::new(ControllerUpdateResponse {}))
    }
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
