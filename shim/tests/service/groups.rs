//! Several containers in one shim: groups and sandboxes.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use berth_proto::containerd::events::TaskExit;
use berth_proto::containerd::runtime::sandbox::v1 as sandbox;
use berth_proto::containerd::task::v3 as api;
use berth_sys::cgroup::Cgroup;
use berth_ttrpc::{Client, Options};
use berth_types::{Kind, Result};
use prost::Message;

use crate::rig::{HANGS, Names, Rig, TASK, action};

const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// Creates and starts another container in the shim of `rig`, with a bundle of its own.
async fn run_beside(rig: &Rig, id: &str, line: &str) -> Result<u32> {
    let bundle = rig.path(id);
    std::fs::create_dir_all(&bundle).unwrap();
    let mut spec = rig.spec.clone();
    spec.process.as_mut().unwrap().args = ["sh", "-c", line].map(str::to_owned).to_vec();
    spec.root.as_mut().unwrap().path = rig.bundle().join("rootfs").to_str().unwrap().to_owned();
    spec.linux.as_mut().unwrap().cgroups_path = Some(format!("/{id}"));
    std::fs::write(bundle.join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    let request = api::CreateTaskRequest {
        id: id.to_owned(),
        bundle: bundle.to_str().unwrap().to_owned(),
        ..Default::default()
    };
    rig.call::<_, api::CreateTaskResponse>("Create", &request).await?;
    let request = api::StartRequest { id: id.to_owned(), ..Default::default() };
    let started: api::StartResponse = rig.call("Start", &request).await?;
    Ok(started.pid)
}

async fn shut_down(rig: &Rig) {
    let request = api::ShutdownRequest { id: rig.id.clone(), now: false };
    rig.call::<_, ()>("Shutdown", &request).await.unwrap();
}

async fn kill_and_delete(rig: &Rig, id: &str) -> api::DeleteResponse {
    let request = api::KillRequest { id: id.to_owned(), signal: 9, ..Default::default() };
    // It may have ended by itself.
    let _ = rig.call::<_, ()>("Kill", &request).await;
    let request = api::WaitRequest { id: id.to_owned(), ..Default::default() };
    rig.call::<_, api::WaitResponse>("Wait", &request).await.unwrap();
    let request = api::DeleteRequest { id: id.to_owned(), ..Default::default() };
    rig.call("Delete", &request).await.unwrap()
}

#[tokio::test]
async fn containers_in_one_shim_live_and_die_apart() {
    let mut rig = Rig::new().await;
    let other = format!("{}-b", rig.id);
    let first = rig.run("sleep 1000", &Names::default()).await;
    let second = run_beside(&rig, &other, "sleep 1000").await.unwrap();
    assert_ne!(first, second);
    let again = run_beside(&rig, &other, "true").await.unwrap_err();
    assert_eq!(again.kind(), Kind::AlreadyExists);
    // An exec's name is its container's own.
    rig.exec("one", "sleep 1000", &Names::default()).await.unwrap();
    let request = api::StateRequest { id: other.clone(), exec_id: "one".into() };
    let error = rig.call::<_, api::StateResponse>("State", &request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);

    kill_and_delete(&rig, &rig.id.clone()).await;
    rig.assert_no_cgroup();
    shut_down(&rig).await;
    let request = api::StateRequest { id: other.clone(), ..Default::default() };
    let state: api::StateResponse = rig.call("State", &request).await.unwrap();
    assert_eq!((state.pid, &*state.bundle), (second, rig.path(&other).to_str().unwrap()));

    assert_eq!(kill_and_delete(&rig, &other).await.exit_status, 137);
    let topics = rig.topics(7).await;
    assert_eq!(topics.iter().filter(|topic| *topic == "/tasks/start").count(), 2);
    let (topic, exit) = rig.event().await;
    let exit = TaskExit::decode(&*exit).unwrap();
    assert_eq!((&*topic, &exit.container_id, exit.pid), ("/tasks/exit", &other, second));
    shut_down(&rig).await;
    assert!(rig.shim.wait().unwrap().success());
}

#[tokio::test]
async fn a_killed_shims_containers_are_cleaned_up_one_by_one() {
    let mut rig = Rig::new().await;
    let other = format!("{}-b", rig.id);
    rig.run("sleep 1000", &Names::default()).await;
    run_beside(&rig, &other, "sleep 1000").await.unwrap();
    rig.shim.kill().unwrap();
    rig.shim.wait().unwrap();
    rig.clean_up();
    rig.assert_no_cgroup();
    let cgroup = Cgroup::open(Path::new(&format!("/{other}"))).unwrap();
    assert_eq!(cgroup.pids().unwrap().len(), 1);
    assert!(action(&other, &rig.path(&other), "delete").output().unwrap().status.success());
    assert!(cgroup.directories().is_empty());
}

/// Runs `start` for a container of a pod and returns the address that it prints.
fn start(directory: &Path, id: &str) -> String {
    let bundle = directory.join(id);
    std::fs::create_dir(&bundle).unwrap();
    let spec = r#"{"ociVersion":"1.0.2","annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#;
    std::fs::write(bundle.join("config.json"), spec).unwrap();
    let mut command = action(id, &bundle, "start");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let address = String::from_utf8(output.stdout).unwrap();
    assert_eq!(std::fs::read_to_string(bundle.join("address")).unwrap(), address);
    address
}

#[tokio::test]
async fn the_containers_of_a_pod_find_its_shim() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), "pod");
    let second = start(directory.path(), "a");
    assert_eq!(first, second);
    // What cleans up after one of them leaves the others their socket.
    let delete = action("a", &directory.path().join("a"), "delete").output().unwrap();
    assert!(delete.status.success());
    let socket = first.strip_prefix("unix://").unwrap();
    let client = Client::connect(socket.as_ref()).await.unwrap();
    let request = api::ShutdownRequest::default();
    let options = Options::timeout(HANGS);
    client.call::<_, ()>(TASK, "Shutdown", &request, &options).await.unwrap();
    client.closed().await;
    assert_ne!(start(directory.path(), "b"), "");
    let client = Client::connect(socket.as_ref()).await.unwrap();
    client.call::<_, ()>(TASK, "Shutdown", &request, &options).await.unwrap();
    client.closed().await;
}

async fn call<Q: Message, R: Message + Default>(rig: &Rig, method: &str, request: &Q) -> Result<R> {
    rig.client.call(SANDBOX, method, request, &Options::timeout(HANGS)).await
}

async fn status(rig: &Rig) -> Result<sandbox::SandboxStatusResponse> {
    let request = sandbox::SandboxStatusRequest { sandbox_id: rig.id.clone(), verbose: true };
    call(rig, "SandboxStatus", &request).await
}

async fn simple<R: Message + Default>(rig: &Rig, method: &str) -> Result<R> {
    // Every request begins with the id.
    call(rig, method, &sandbox::PingRequest { sandbox_id: rig.id.clone() }).await
}

#[tokio::test]
async fn a_sandbox_keeps_its_shim_from_create_to_shutdown() {
    let mut rig = Rig::new().await;
    let error = simple::<sandbox::PingResponse>(&rig, "PingSandbox").await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let mut create =
        sandbox::CreateSandboxRequest { sandbox_id: "another".into(), ..Default::default() };
    let error = call::<_, ()>(&rig, "CreateSandbox", &create).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    create.sandbox_id.clone_from(&rig.id);
    call::<_, ()>(&rig, "CreateSandbox", &create).await.unwrap();
    let error = call::<_, ()>(&rig, "CreateSandbox", &create).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AlreadyExists);
    assert_eq!(status(&rig).await.unwrap().state, "SANDBOX_NOTREADY");

    let started: sandbox::StartSandboxResponse = simple(&rig, "StartSandbox").await.unwrap();
    assert_eq!(started.pid, rig.shim.id());
    let now = status(&rig).await.unwrap();
    assert_eq!((now.state.as_str(), now.created_at), ("SANDBOX_READY", started.created_at));
    let platform: sandbox::PlatformResponse = simple(&rig, "Platform").await.unwrap();
    assert_eq!(platform.platform.unwrap().os, "linux");
    let metrics: sandbox::SandboxMetricsResponse = simple(&rig, "SandboxMetrics").await.unwrap();
    assert_eq!(metrics.metrics.unwrap().id, rig.id);

    // Its containers come and go.
    let other = format!("{}-b", rig.id);
    run_beside(&rig, &other, "exit 3").await.unwrap();
    let request = api::WaitRequest { id: other.clone(), ..Default::default() };
    rig.call::<_, api::WaitResponse>("Wait", &request).await.unwrap();
    assert_eq!(kill_and_delete(&rig, &other).await.exit_status, 3);
    shut_down(&rig).await;
    simple::<sandbox::PingResponse>(&rig, "PingSandbox").await.unwrap();

    run_beside(&rig, &other, "trap '' TERM; sleep 1000").await.unwrap();
    // One that is paused ends too.
    rig.call::<_, ()>("Pause", &api::PauseRequest { id: other.clone() }).await.unwrap();
    let wait = simple::<sandbox::WaitSandboxResponse>(&rig, "WaitSandbox");
    let stop = sandbox::StopSandboxRequest { sandbox_id: rig.id.clone(), timeout_secs: 1 };
    let stop = call::<_, sandbox::StopSandboxResponse>(&rig, "StopSandbox", &stop);
    let (waited, stopped) = tokio::join!(wait, stop);
    stopped.unwrap();
    let exited_at = waited.unwrap().exited_at;
    let now = status(&rig).await.unwrap();
    assert_eq!((now.state.as_str(), now.exited_at), ("SANDBOX_NOTREADY", exited_at));
    assert_eq!(kill_and_delete(&rig, &other).await.exit_status, 137);
    let shut = simple::<sandbox::ShutdownSandboxResponse>(&rig, "ShutdownSandbox").await;
    shut.unwrap();
    assert!(rig.shim.wait().unwrap().success());
}
