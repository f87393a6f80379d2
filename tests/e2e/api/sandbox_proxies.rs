//! Sandbox controllers of other processes, which containerd has since 2.0: Debian's does not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use berth_proto::containerd::events::{SandboxCreate, SandboxExit};
use berth_proto::containerd::services::sandbox::v1::controller_client::ControllerClient;
use berth_proto::containerd::services::sandbox::v1::controller_server::{
    Controller, ControllerServer,
};
use berth_proto::containerd::services::sandbox::v1::store_client::StoreClient;
use berth_proto::containerd::services::sandbox::v1::{
    ControllerCreateRequest, ControllerCreateResponse, ControllerMetricsRequest,
    ControllerMetricsResponse, ControllerPlatformRequest, ControllerPlatformResponse,
    ControllerShutdownRequest, ControllerShutdownResponse, ControllerStartRequest,
    ControllerStartResponse, ControllerStatusRequest, ControllerStatusResponse,
    ControllerStopRequest, ControllerStopResponse, ControllerUpdateRequest,
    ControllerUpdateResponse, ControllerWaitRequest, ControllerWaitResponse, StoreCreateRequest,
};
use berth_proto::containerd::types::{Platform, Sandbox};
use berth_tests::{Engine, Finished};
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use super::events::Subscription;
use super::{Api, code, labels};

/// Keeps sandboxes that are nothing but their records.
#[derive(Clone, Default)]
struct Machines {
    /// By namespace and id.
    known: Arc<Mutex<HashMap<(String, String), Sandbox>>>,
    ended: Arc<Notify>,
}

impl Machines {
    fn find<T>(&self, request: &Request<T>, id: &str) -> Result<Sandbox, Status> {
        let namespace = request.metadata().get("containerd-namespace").unwrap();
        let key = (namespace.to_str().unwrap().to_owned(), id.to_owned());
        let known = self.known.lock().unwrap();
        known.get(&key).cloned().ok_or_else(|| Status::not_found("no machine"))
    }
}

#[tonic::async_trait]
impl Controller for Machines {
    async fn create(
        &self,
        request: Request<ControllerCreateRequest>,
    ) -> Result<Response<ControllerCreateResponse>, Status> {
        let namespace = request.metadata().get("containerd-namespace").unwrap();
        let namespace = namespace.to_str().unwrap().to_owned();
        let ControllerCreateRequest { sandbox_id, sandbox, sandboxer, .. } = request.into_inner();
        assert_eq!(sandboxer, "machines");
        let key = (namespace, sandbox_id.clone());
        self.known.lock().unwrap().insert(key, sandbox.unwrap_or_default());
        Ok(Response::new(ControllerCreateResponse { sandbox_id }))
    }

    async fn start(
        &self,
        request: Request<ControllerStartRequest>,
    ) -> Result<Response<ControllerStartResponse>, Status> {
        let labels = self.find(&request, &request.get_ref().sandbox_id)?.labels;
        Ok(Response::new(ControllerStartResponse { pid: 7, labels, ..Default::default() }))
    }

    async fn platform(
        &self,
        request: Request<ControllerPlatformRequest>,
    ) -> Result<Response<ControllerPlatformResponse>, Status> {
        self.find(&request, &request.get_ref().sandbox_id)?;
        let platform = Platform { os: "plan9".into(), ..Default::default() };
        Ok(Response::new(ControllerPlatformResponse { platform: Some(platform) }))
    }

    async fn stop(
        &self,
        request: Request<ControllerStopRequest>,
    ) -> Result<Response<ControllerStopResponse>, Status> {
        self.find(&request, &request.get_ref().sandbox_id)?;
        self.ended.notify_one();
        Ok(Response::new(ControllerStopResponse {}))
    }

    async fn wait(
        &self,
        request: Request<ControllerWaitRequest>,
    ) -> Result<Response<ControllerWaitResponse>, Status> {
        self.find(&request, &request.get_ref().sandbox_id)?;
        self.ended.notified().await;
        Ok(Response::new(ControllerWaitResponse { exit_status: 9, exited_at: None }))
    }

    async fn status(
        &self,
        request: Request<ControllerStatusRequest>,
    ) -> Result<Response<ControllerStatusResponse>, Status> {
        let info = self.find(&request, &request.get_ref().sandbox_id)?.labels;
        Ok(Response::new(ControllerStatusResponse { info, ..Default::default() }))
    }

    async fn shutdown(
        &self,
        request: Request<ControllerShutdownRequest>,
    ) -> Result<Response<ControllerShutdownResponse>, Status> {
        self.find(&request, &request.get_ref().sandbox_id)?;
        self.known.lock().unwrap().clear();
        Ok(Response::new(ControllerShutdownResponse {}))
    }

    async fn metrics(
        &self,
        request: Request<ControllerMetricsRequest>,
    ) -> Result<Response<ControllerMetricsResponse>, Status> {
        self.find(&request, &request.get_ref().sandbox_id)?;
        Err(Status::unimplemented("machines are not measured"))
    }

    async fn update(
        &self,
        request: Request<ControllerUpdateRequest>,
    ) -> Result<Response<ControllerUpdateResponse>, Status> {
        self.find(&request, &request.get_ref().sandbox_id)?;
        Ok(Response::new(ControllerUpdateResponse {}))
    }
}

#[tokio::test]
async fn a_sandbox_controller_of_another_process() {
    let Some(mut engine) = Engine::prepare() else { return };
    let socket = engine.path("machines.sock");
    engine.configure(&format!(
        "[proxy_plugins.machines]\ntype = \"sandbox\"\naddress = {socket:?}\n"
    ));
    engine.start_daemon();
    let api = Api::of(engine).await;
    let mut client = api.client(ControllerClient::new);
    let (id, machines) = (|| "pod".to_owned(), || "machines".to_owned());
    let create = ControllerCreateRequest {
        sandbox_id: id(),
        sandboxer: machines(),
        ..ControllerCreateRequest::default()
    };
    // Nobody is there yet.
    let error = client.create(api.request(create.clone())).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().contains("machines"), "{error}");

    let service = Machines::default();
    let listener = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let server = Server::builder().add_service(ControllerServer::new(service));
    tokio::spawn(server.serve_with_incoming(listener));
    let mut heard = Subscription::new(&api, &["topic~=^/sandboxes/"]).await;
    // What the store knows of the sandbox goes along.
    let labels = labels(&[("a", "1")]);
    let sandbox = Sandbox { sandbox_id: id(), labels: labels.clone(), ..Default::default() };
    let store = StoreCreateRequest { sandbox: Some(sandbox) };
    api.client(StoreClient::new).create(api.request(store)).await.unwrap();
    client.create(api.request(create)).await.unwrap();
    let created = heard.next().await;
    assert_eq!(created.topic, "/sandboxes/create");
    assert_eq!(SandboxCreate::decode(&*created.event.unwrap().value).unwrap().sandbox_id, "pod");
    let start = ControllerStartRequest { sandbox_id: id(), sandboxer: machines() };
    let started = client.start(api.request(start.clone())).await.unwrap().into_inner();
    assert_eq!((started.pid, started.labels), (7, labels.clone()));
    assert_eq!(heard.next().await.topic, "/sandboxes/start");
    let elsewhere = client.start(api.request_in("other", start)).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::NotFound);

    let about = ControllerStatusRequest { sandbox_id: id(), sandboxer: machines(), verbose: true };
    assert_eq!(client.status(api.request(about)).await.unwrap().into_inner().info, labels);
    let about = ControllerPlatformRequest { sandbox_id: id(), sandboxer: machines() };
    let platform = client.platform(api.request(about)).await.unwrap().into_inner().platform;
    assert_eq!(platform.unwrap().os, "plan9");
    let about = ControllerMetricsRequest { sandbox_id: id(), sandboxer: machines() };
    assert_eq!(code(client.metrics(api.request(about)).await), Code::Unimplemented);
    let update =
        ControllerUpdateRequest { sandbox_id: id(), sandboxer: machines(), ..Default::default() };
    client.update(api.request(update)).await.unwrap();

    let wait = api.request(ControllerWaitRequest { sandbox_id: id(), sandboxer: machines() });
    let mut waiter = client.clone();
    let waiting = tokio::spawn(async move { waiter.wait(wait).await });
    let stop = ControllerStopRequest { sandbox_id: id(), sandboxer: machines(), timeout_secs: 1 };
    client.stop(api.request(stop)).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().into_inner().exit_status, 9);
    let exit = heard.next().await;
    assert_eq!(exit.topic, "/sandboxes/exit");
    assert_eq!(SandboxExit::decode(&*exit.event.unwrap().value).unwrap().exit_status, 9);
    let shutdown = ControllerShutdownRequest { sandbox_id: id(), sandboxer: machines() };
    client.shutdown(api.request(shutdown.clone())).await.unwrap();
    let gone = client.shutdown(api.request(shutdown)).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert!(gone.message().contains("sandbox controller machines: no machine"), "{gone}");
    let plugins = api.engine.ctr(&["plugins", "ls"]).success().stdout;
    assert!(
        plugins
            .lines()
            .any(|line| line.contains("sandbox.controller") && line.contains("machines"))
    );
    let unknown = ControllerShutdownRequest { sandbox_id: id(), sandboxer: "nobodys".into() };
    let unknown = client.shutdown(api.request(unknown)).await.unwrap_err();
    assert!(unknown.message().contains("shim, machines"), "{unknown}");
}

#[test]
fn a_sandbox_controller_is_not_called_as_the_one_that_is_built_in() {
    let Some(engine) = Engine::prepare() else { return };
    engine.configure("[proxy_plugins.shim]\ntype = \"sandbox\"\naddress = \"/nowhere\"\n");
    let refused = Finished::leaving(&mut engine.daemon_command());
    assert_ne!(refused.code, 0);
    refused.complains("another name");
    // It is started once more, to be tidied up after.
    engine.configure("");
}
