//! Sandboxes that run, which containerd has since 1.7: Debian's does not.

use berth_proto::containerd::events::{SandboxCreate, SandboxExit, SandboxStart};
use berth_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_proto::containerd::services::containers::v1::{
    CreateContainerRequest, DeleteContainerRequest, GetContainerRequest,
};
use berth_proto::containerd::services::sandbox::v1::controller_client::ControllerClient;
use berth_proto::containerd::services::sandbox::v1::{
    ControllerCreateRequest, ControllerMetricsRequest, ControllerPlatformRequest,
    ControllerShutdownRequest, ControllerStartRequest, ControllerStartResponse,
    ControllerStatusRequest, ControllerStatusResponse, ControllerStopRequest,
    ControllerUpdateRequest, ControllerWaitRequest, StoreCreateRequest, store_client::StoreClient,
};
use berth_proto::containerd::types::{Sandbox, sandbox};
use berth_tests::{Engine, Image, built, leaks, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message;
use prost_types::Any;
use tonic::Code;
use tonic::transport::Channel;

use super::events::Subscription;
use super::{Api, code};

const IMAGE: &str = "docker.io/library/busybox:latest";
/// Debian's shim, of the time before sandboxes.
const RUNC_SHIM: &str = "/usr/bin/containerd-shim-runc-v2";

fn shim() -> String {
    "shim".to_owned()
}

fn record(id: &str, runtime: &str) -> Sandbox {
    let runtime = sandbox::Runtime { name: runtime.to_owned(), options: None };
    Sandbox { sandbox_id: id.into(), runtime: Some(runtime), ..Default::default() }
}

fn create(id: &str, runtime: &str) -> ControllerCreateRequest {
    ControllerCreateRequest {
        sandbox_id: id.into(),
        sandbox: Some(record(id, runtime)),
        sandboxer: shim(),
        ..Default::default()
    }
}

/// One sandbox, "pod", of one engine.
struct Pod {
    api: Api,
    client: ControllerClient<Channel>,
}

impl Pod {
    async fn new() -> Option<Self> {
        let engine = Engine::berth()?;
        engine.import(&Image::busybox(IMAGE));
        let api = Api::of(engine).await;
        let client = api.client(ControllerClient::new);
        Some(Self { api, client })
    }

    async fn create(&mut self) {
        let request = self.api.request(create("pod", "io.containerd.runc.v2"));
        assert_eq!(self.client.create(request).await.unwrap().into_inner().sandbox_id, "pod");
    }

    async fn start(&mut self) -> ControllerStartResponse {
        let request = ControllerStartRequest { sandbox_id: "pod".into(), sandboxer: shim() };
        self.client.start(self.api.request(request)).await.unwrap().into_inner()
    }

    async fn status(&mut self) -> ControllerStatusResponse {
        let (sandbox_id, sandboxer) = ("pod".into(), shim());
        let request = ControllerStatusRequest { sandbox_id, sandboxer, verbose: false };
        self.client.status(self.api.request(request)).await.unwrap().into_inner()
    }

    async fn shut_down(&mut self) -> Code {
        let request = ControllerShutdownRequest { sandbox_id: "pod".into(), sandboxer: shim() };
        code(self.client.shutdown(self.api.request(request)).await)
    }

    /// Runs a container in the sandbox.
    async fn run(&self, id: &str) {
        let engine = &self.api.engine;
        engine.ctr(&["containers", "create", IMAGE, id, "sleep", "1000"]).success();
        // `ctr` of this age knows no sandboxes: the record is made once more, in one.
        let mut containers = self.api.client(ContainersClient::new);
        let get = self.api.request(GetContainerRequest { id: id.into() });
        let mut container = containers.get(get).await.unwrap().into_inner().container.unwrap();
        let delete = self.api.request(DeleteContainerRequest { id: id.into() });
        containers.delete(delete).await.unwrap();
        container.sandbox = "pod".to_owned();
        let request = self.api.request(CreateContainerRequest { container: Some(container) });
        containers.create(request).await.unwrap();
        engine.ctr(&["tasks", "start", "-d", id]).success();
    }

    /// Kills the daemon, after which `meanwhile` is done, and starts another one.
    async fn restart(&mut self, meanwhile: impl FnOnce()) {
        self.api.engine.stop_daemon(Signal::SIGKILL);
        meanwhile();
        self.api.engine.start_daemon();
        self.api.channel = Api::connect(&self.api.engine).await;
        self.client = self.api.client(ControllerClient::new);
    }

    fn shims(&self) -> Vec<i32> {
        leaks::shims(self.api.engine.namespace())
    }

    fn is_running(&self, id: &str) -> bool {
        let list = self.api.engine.ctr(&["tasks", "ls"]).success().stdout;
        list.lines().any(|row| row.starts_with(&format!("{id} ")) && row.contains("RUNNING"))
    }
}

#[tokio::test]
async fn a_sandboxs_containers_share_its_shim() {
    let Some(mut pod) = Pod::new().await else { return };
    let mut heard = Subscription::new(&pod.api, &["topic~=^/sandboxes/"]).await;
    pod.create().await;
    assert_eq!(
        SandboxCreate::decode(&*next(&mut heard, "create").await).unwrap().sandbox_id,
        "pod"
    );
    assert_eq!(pod.status().await.state, "SANDBOX_NOTREADY");
    let started = pod.start().await;
    assert_eq!(SandboxStart::decode(&*next(&mut heard, "start").await).unwrap().sandbox_id, "pod");
    assert_eq!(vec![started.pid as i32], pod.shims());
    assert!(started.address.starts_with("ttrpc+unix:///") && started.version == 3, "{started:?}");
    let status = pod.status().await;
    assert_eq!((&*status.state, status.pid), ("SANDBOX_READY", started.pid));
    assert_eq!((status.created_at, status.address), (started.created_at, started.address));

    let about = ControllerPlatformRequest { sandbox_id: "pod".into(), sandboxer: shim() };
    let platform = pod.client.platform(pod.api.request(about)).await.unwrap().into_inner();
    assert_eq!(platform.platform.unwrap().os, "linux");
    let about = ControllerMetricsRequest { sandbox_id: "pod".into(), sandboxer: shim() };
    let metrics = pod.client.metrics(pod.api.request(about)).await.unwrap().into_inner();
    assert_eq!(metrics.metrics.unwrap().id, "pod");

    pod.run("one").await;
    pod.run("two").await;
    assert_eq!(pod.shims().len(), 1);
    // The first one's end is not the shim's, nor is the last one's.
    pod.api.engine.ctr(&["tasks", "rm", "-f", "one"]).success();
    assert!(pod.is_running("two"));
    pod.api.engine.ctr(&["tasks", "rm", "-f", "two"]).success();
    assert_eq!(pod.status().await.state, "SANDBOX_READY");
    assert_eq!(pod.shut_down().await, Code::Ok);
    let exit = SandboxExit::decode(&*next(&mut heard, "exit").await).unwrap();
    assert_eq!((&*exit.sandbox_id, exit.exit_status), ("pod", 0));
    wait_until("the shim's end", || pod.shims().is_empty());
    // As with containerd, what is not there is one that has ended.
    let status = pod.status().await;
    assert!(status.state.is_empty() && status.exited_at.is_some(), "{status:?}");
    assert_eq!(pod.shut_down().await, Code::NotFound);
    pod.create().await;
    assert_eq!(pod.shut_down().await, Code::Ok);
}

async fn next(heard: &mut Subscription, topic: &str) -> Vec<u8> {
    let envelope = heard.next().await;
    assert_eq!(envelope.topic, format!("/sandboxes/{topic}"));
    envelope.event.unwrap().value
}

#[tokio::test]
async fn a_stopped_sandbox_has_ended_its_containers() {
    let Some(mut pod) = Pod::new().await else { return };
    pod.create().await;
    pod.start().await;
    // It is its pidns' init, which ignores what it is asked.
    pod.run("one").await;
    let mut heard = Subscription::new(&pod.api, &["topic~=^/sandboxes/"]).await;
    let mut waiter = pod.client.clone();
    let wait = ControllerWaitRequest { sandbox_id: "pod".into(), sandboxer: shim() };
    let (first, second) = (pod.api.request(wait.clone()), pod.api.request(wait));
    let waiting = tokio::spawn(async move { waiter.wait(first).await });
    let stop =
        ControllerStopRequest { sandbox_id: "pod".into(), timeout_secs: 1, sandboxer: shim() };
    pod.client.stop(pod.api.request(stop.clone())).await.unwrap();
    let exited_at = waiting.await.unwrap().unwrap().into_inner().exited_at;
    assert!(exited_at.is_some());
    let again = pod.client.wait(second).await.unwrap().into_inner();
    assert_eq!(again.exited_at, exited_at);
    let exit = SandboxExit::decode(&*next(&mut heard, "exit").await).unwrap();
    assert_eq!(exit.exited_at, exited_at);
    wait_until("the container's end", || !pod.is_running("one"));
    let status = pod.status().await;
    assert_eq!((&*status.state, status.exited_at), ("SANDBOX_NOTREADY", exited_at));
    pod.api.engine.ctr(&["tasks", "rm", "one"]).complains("137");
    // One that has ended can't be started, and is shut down by the attempt.
    let start = ControllerStartRequest { sandbox_id: "pod".into(), sandboxer: shim() };
    let refused = pod.client.start(pod.api.request(start)).await;
    assert_eq!(code(refused), Code::FailedPrecondition);
    wait_until("the shim's end", || pod.shims().is_empty());
    pod.client.stop(pod.api.request(stop)).await.unwrap();
    // Its end was told of once.
    pod.create().await;
    next(&mut heard, "create").await;
    assert_eq!(pod.shut_down().await, Code::Ok);
}

#[tokio::test]
async fn a_sandbox_outlives_the_daemon() {
    let Some(mut pod) = Pod::new().await else { return };
    pod.create().await;
    let started = pod.start().await;
    pod.run("one").await;
    pod.restart(|| {}).await;
    let status = pod.status().await;
    assert_eq!((&*status.state, status.pid), ("SANDBOX_READY", started.pid));
    assert_eq!(status.created_at, started.created_at);
    assert!(pod.is_running("one"));
    pod.run("two").await;
    assert_eq!(pod.shims(), [started.pid as i32]);
    // Its containers keep the shim that the sandbox has left.
    assert_eq!(pod.shut_down().await, Code::Ok);
    assert!(pod.is_running("one") && pod.is_running("two"));
    for id in ["one", "two"] {
        pod.api.engine.ctr(&["tasks", "rm", "-f", id]).success();
    }
    wait_until("the shim's end", || pod.shims().is_empty());
}

/// Its bundle may be damaged or deleted while no daemon is there.
#[tokio::test]
async fn a_sandbox_outlives_its_bundle() {
    let Some(mut pod) = Pod::new().await else { return };
    pod.create().await;
    let started = pod.start().await;
    let address = pod.api.engine.address();
    let bundles = "io.containerd.sandbox.controller.v1.shim";
    let bundles = address.parent().unwrap().join(bundles).join(pod.api.engine.namespace());
    pod.restart(|| std::fs::remove_dir_all(&bundles).unwrap()).await;
    assert_eq!(pod.status().await.pid, started.pid);
    pod.run("one").await;
    pod.restart(|| std::fs::remove_dir_all(&bundles).unwrap()).await;
    assert_eq!(pod.status().await.pid, started.pid);
    pod.api.engine.ctr(&["tasks", "rm", "-f", "one"]).success();
    // A restart brings no sandbox back that was shut down before its container.
    pod.run("two").await;
    assert_eq!(pod.shut_down().await, Code::Ok);
    pod.restart(|| {}).await;
    assert!(pod.is_running("two"));
    assert_eq!(pod.shut_down().await, Code::NotFound);
    pod.api.engine.ctr(&["tasks", "rm", "-f", "two"]).success();
    wait_until("the shim's end", || pod.shims().is_empty());
}

/// The same program, started as one that isn't berth's.
#[tokio::test]
async fn a_sandbox_may_have_another_shim() {
    let Some(mut pod) = Pod::new().await else { return };
    let shim = built("containerd-shim-berth-v1").display().to_string();
    let mut created = create("pod", &shim);
    let spec = Any { type_url: "spec".into(), value: b"{}".into() };
    created.sandbox.as_mut().unwrap().spec = Some(spec);
    pod.client.create(pod.api.request(created)).await.unwrap();
    let started = pod.start().await;
    assert_eq!((pod.shims(), started.version), (vec![started.pid as i32], 3));
    pod.run("one").await;
    pod.restart(|| {}).await;
    assert_eq!(pod.status().await.address, started.address);
    pod.run("two").await;
    pod.api.engine.ctr(&["tasks", "rm", "-f", "one"]).success();
    assert!(pod.is_running("two"));
    assert_eq!(pod.shut_down().await, Code::Ok);
    assert_eq!(pod.shims(), [started.pid as i32]);
    pod.api.engine.ctr(&["tasks", "rm", "-f", "two"]).success();
    wait_until("the shim's end", || pod.shims().is_empty());
}

#[tokio::test]
async fn a_sandbox_ends_with_its_shim() {
    let Some(mut pod) = Pod::new().await else { return };
    pod.create().await;
    pod.start().await;
    pod.run("one").await;
    let mut heard = Subscription::new(&pod.api, &["topic~=^/sandboxes/"]).await;
    let wait = ControllerWaitRequest { sandbox_id: "pod".into(), sandboxer: shim() };
    let wait = pod.api.request(wait);
    let mut waiter = pod.client.clone();
    let waiting = tokio::spawn(async move { waiter.wait(wait).await });
    // Both calls are on one connection: when this one is answered, that one has begun.
    pod.status().await;
    let [shim] = pod.shims()[..] else { panic!("not one shim") };
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().into_inner().exit_status, 137);
    let exit = SandboxExit::decode(&*next(&mut heard, "exit").await).unwrap();
    assert_eq!(exit.exit_status, 137);
    wait_until("the cleanup", || !pod.is_running("one"));

    // The same while no daemon is there.
    pod.create().await;
    next(&mut heard, "create").await;
    let shim = pod.start().await.pid as i32;
    pod.restart(|| kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap()).await;
    assert_eq!(pod.shut_down().await, Code::NotFound);
    pod.create().await;
    assert_eq!(pod.shut_down().await, Code::Ok);
}

#[tokio::test]
async fn what_a_controller_refuses() {
    let Some(mut pod) = Pod::new().await else { return };
    let mut refused = async |request: ControllerCreateRequest| {
        let error = pod.client.create(pod.api.request(request)).await.unwrap_err();
        (error.code(), error.message().to_owned())
    };
    let runtime = "io.containerd.runc.v2";
    let nameless = ControllerCreateRequest { sandboxer: String::new(), ..create("a", runtime) };
    assert_eq!(refused(nameless).await.0, Code::InvalidArgument);
    let other = ControllerCreateRequest { sandboxer: "podsandbox".into(), ..create("a", runtime) };
    assert_eq!(refused(other).await.0, Code::NotFound);
    assert_eq!(refused(create("a/b", runtime)).await.0, Code::InvalidArgument);
    assert_eq!(refused(create("a", "io.nobodys.v9")).await.0, Code::NotFound);
    let unstored = ControllerCreateRequest { sandbox: None, ..create("a", runtime) };
    assert_eq!(refused(unstored.clone()).await.0, Code::NotFound);
    // A shim of before the sandboxes is ended again.
    let mut old = create("a", RUNC_SHIM);
    let spec = Any { type_url: "spec".into(), value: b"{}".into() };
    old.sandbox.as_mut().unwrap().spec = Some(spec);
    let (code_of_old, message) = refused(old).await;
    assert_eq!(code_of_old, Code::Unimplemented, "{message}");
    wait_until("the shim's end", || pod.shims().is_empty());

    let store = StoreCreateRequest { sandbox: Some(record("a", runtime)) };
    pod.api.client(StoreClient::new).create(pod.api.request(store)).await.unwrap();
    pod.client.create(pod.api.request(unstored.clone())).await.unwrap();
    let twice = pod.client.create(pod.api.request(unstored)).await;
    assert_eq!(code(twice), Code::AlreadyExists);
    let mut update =
        ControllerUpdateRequest { sandbox_id: "a".into(), sandboxer: shim(), ..Default::default() };
    let empty = pod.client.update(pod.api.request(update.clone())).await;
    assert_eq!(code(empty), Code::InvalidArgument);
    update.sandbox = Some(record("a", runtime));
    pod.client.update(pod.api.request(update)).await.unwrap();
    let shutdown = ControllerShutdownRequest { sandbox_id: "a".into(), sandboxer: shim() };
    pod.client.shutdown(pod.api.request(shutdown)).await.unwrap();

    let about = ControllerPlatformRequest { sandbox_id: "a".into(), sandboxer: shim() };
    assert_eq!(code(pod.client.platform(pod.api.request(about)).await), Code::NotFound);
    let about = ControllerMetricsRequest { sandbox_id: "a".into(), sandboxer: shim() };
    assert_eq!(code(pod.client.metrics(pod.api.request(about)).await), Code::NotFound);
    let about = ControllerStartRequest { sandbox_id: "a".into(), sandboxer: shim() };
    assert_eq!(code(pod.client.start(pod.api.request(about)).await), Code::NotFound);
    let about = ControllerWaitRequest { sandbox_id: "a".into(), sandboxer: shim() };
    assert_eq!(code(pod.client.wait(pod.api.request(about)).await), Code::NotFound);
}
