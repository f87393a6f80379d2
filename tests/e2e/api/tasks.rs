use std::time::Duration;

use berth_proto::containerd::services::snapshots::v1::MountsRequest;
use berth_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use berth_proto::containerd::services::tasks::v1::{
    CheckpointTaskRequest, CloseIoRequest, CreateTaskRequest, DeleteProcessRequest,
    DeleteTaskRequest, ExecProcessRequest, GetRequest, KillRequest, ListPidsRequest,
    ListTasksRequest, MetricsRequest, PauseTaskRequest, ResizePtyRequest, ResumeTaskRequest,
    StartRequest, UpdateTaskRequest, WaitRequest,
};
use berth_proto::containerd::v1::types::Status;
use berth_tests::{Engine, Finished, Flavor, Image, leaks};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use prost_types::Any;
use serde_json::{Value, json};
use tonic::Code;

use super::{Api, code};

const IMAGE: &str = "docker.io/library/busybox:latest";
const SIGKILL: u32 = 9;

fn start(exec_id: &str) -> StartRequest {
    StartRequest { container_id: "one".into(), exec_id: exec_id.into() }
}

fn get(exec_id: &str) -> GetRequest {
    GetRequest { container_id: "one".into(), exec_id: exec_id.into() }
}

fn wait(exec_id: &str) -> WaitRequest {
    WaitRequest { container_id: "one".into(), exec_id: exec_id.into() }
}

fn kill(exec_id: &str) -> KillRequest {
    let (container_id, exec_id) = ("one".into(), exec_id.into());
    KillRequest { container_id, exec_id, signal: SIGKILL, all: false }
}

fn any(name: &str, value: &Value) -> Option<Any> {
    let type_url = format!("types.containerd.io/opencontainers/runtime-spec/1/{name}");
    Some(Any { type_url, value: value.to_string().into_bytes() })
}

fn exec(exec_id: &str, args: &[&str]) -> ExecProcessRequest {
    exec_on(false, exec_id, args)
}

fn exec_on(terminal: bool, exec_id: &str, args: &[&str]) -> ExecProcessRequest {
    let process = json!({ "args": args, "cwd": "/", "user": { "uid": 0, "gid": 0 },
        "env": ["PATH=/bin"], "terminal": terminal });
    ExecProcessRequest {
        container_id: "one".into(),
        exec_id: exec_id.into(),
        terminal,
        spec: any("Process", &process),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_tasks_life() {
    let api = Api::start().await;
    api.engine.import(&Image::busybox(IMAGE));
    api.engine.ctr(&["containers", "create", IMAGE, "one", "sleep", "1000"]).success();
    let mut client = api.client(TasksClient::new);
    assert_eq!(code(client.get(api.request(get(""))).await), Code::NotFound);
    let create = |id: &str| CreateTaskRequest { container_id: id.into(), ..Default::default() };
    let missing = client.create(api.request(create("nobody"))).await;
    assert_eq!(code(missing), Code::NotFound);
    // The root file system comes with the request: `ctr` asks the snapshotter for it.
    let key = api.engine.ctr(&["snapshots", "mounts", "/target", "one"]).success().stdout;
    assert!(key.contains("overlay"), "{key}");
    api.engine.ctr(&["tasks", "start", "-d", "one"]).success();
    let again = client.create(api.request(create("one"))).await;
    assert_eq!(code(again), Code::AlreadyExists);

    let process = client.get(api.request(get(""))).await.unwrap().into_inner().process.unwrap();
    assert_eq!((process.id.as_str(), process.status()), ("one", Status::Running));
    assert_eq!(code(client.get(api.request(get("nothing"))).await), Code::NotFound);
    let tasks = client.list(api.request(ListTasksRequest::default())).await.unwrap().into_inner();
    assert_eq!(tasks.tasks.len(), 1);
    let running = DeleteTaskRequest { container_id: "one".into() };
    api.check(code(client.delete(api.request(running)).await), Code::FailedPrecondition);

    client.exec(api.request(exec("e", &["sh", "-c", "exit 3"]))).await.unwrap();
    let taken = client.exec(api.request(exec("e", &["true"]))).await;
    assert_eq!(code(taken), Code::AlreadyExists);
    let badly_named = client.exec(api.request(exec("a/b", &["true"]))).await;
    assert_eq!(code(badly_named), Code::InvalidArgument);
    client.start(api.request(start("e"))).await.unwrap();
    let exit = client.wait(api.request(wait("e"))).await.unwrap().into_inner();
    assert_eq!(exit.exit_status, 3);
    assert!(exit.exited_at.is_some());
    let delete = DeleteProcessRequest { container_id: "one".into(), exec_id: "e".into() };
    let deleted = client.delete_process(api.request(delete.clone())).await.unwrap().into_inner();
    assert_eq!(deleted.exit_status, 3);
    assert_eq!(code(client.delete_process(api.request(delete)).await), Code::NotFound);

    let pids = ListPidsRequest { container_id: "one".into() };
    let pids = client.list_pids(api.request(pids)).await.unwrap().into_inner().processes;
    assert_eq!(pids.iter().map(|process| process.pid).collect::<Vec<_>>(), [process.pid]);
    let metrics = MetricsRequest { filters: vec!["id==one".into()] };
    let metrics = client.metrics(api.request(metrics)).await.unwrap().into_inner().metrics;
    assert_eq!(metrics.len(), 1);
    let limits = json!({ "pids": { "limit": 77 } });
    let update = UpdateTaskRequest {
        container_id: "one".into(),
        resources: any("LinuxResources", &limits),
        ..Default::default()
    };
    client.update(api.request(update)).await.unwrap();
    let pause = PauseTaskRequest { container_id: "one".into() };
    client.pause(api.request(pause)).await.unwrap();
    let process = client.get(api.request(get(""))).await.unwrap().into_inner().process.unwrap();
    assert_eq!(process.status(), Status::Paused);
    let resume = ResumeTaskRequest { container_id: "one".into() };
    client.resume(api.request(resume)).await.unwrap();

    assert_eq!(code(client.kill(api.request(kill("nothing"))).await), Code::NotFound);
    client.kill(api.request(kill(""))).await.unwrap();
    let exit = client.wait(api.request(wait(""))).await.unwrap().into_inner();
    assert_eq!(exit.exit_status, 137);
    assert_eq!(code(client.kill(api.request(kill(""))).await), Code::NotFound);
    let delete = DeleteTaskRequest { container_id: "one".into() };
    let deleted = client.delete(api.request(delete.clone())).await.unwrap().into_inner();
    assert_eq!((deleted.exit_status, deleted.id.as_str()), (137, ""));
    assert_eq!(code(client.delete(api.request(delete)).await), Code::NotFound);
    assert_eq!(code(client.wait(api.request(wait(""))).await), Code::NotFound);
}

/// A FIFO in the engine's directory.
fn fifo(api: &Api, name: &str) -> String {
    let path = api.engine.path(name).display().to_string();
    Finished::run("mkfifo", &[&path], b"").success();
    path
}

/// Opens a FIFO without waiting for who has the other end.
fn open(path: &str) -> std::fs::File {
    std::fs::File::options().read(true).write(true).open(path).unwrap()
}

#[tokio::test]
async fn input_is_closed_and_a_terminal_resized() {
    let api = Api::start().await;
    api.engine.import(&Image::busybox(IMAGE));
    api.engine.ctr(&["run", "-d", IMAGE, "one", "sleep", "1000"]).success();
    let mut client = api.client(TasksClient::new);
    let input = fifo(&api, "input");
    let writer = open(&input);
    // Who names one of these names all: runc's shim opens none or each.
    let output = fifo(&api, "nothing");
    let _nothing = open(&output);
    let (stdout, stderr) = (output.clone(), output);
    let cat = ExecProcessRequest { stdin: input, stdout, stderr, ..exec("cat", &["cat"]) };
    client.exec(api.request(cat)).await.unwrap();
    client.start(api.request(start("cat"))).await.unwrap();
    // The shim holds the FIFO open too, until it is told.
    drop(writer);
    let close = CloseIoRequest { container_id: "one".into(), exec_id: "cat".into(), stdin: true };
    client.close_io(api.request(close.clone())).await.unwrap();
    let exit = client.wait(api.request(wait("cat"))).await.unwrap().into_inner();
    assert_eq!(exit.exit_status, 0);
    let nobodys = CloseIoRequest { exec_id: "nobody".into(), ..close };
    assert_eq!(code(client.close_io(api.request(nobodys)).await), Code::NotFound);

    let output = fifo(&api, "output");
    let _open = open(&output);
    let look = "until stty size | grep -q '33 99'; do sleep 0.01; done; exit 5";
    let look = ["sh", "-c", look];
    let tty = ExecProcessRequest { stdout: output, ..exec_on(true, "tty", &look) };
    client.exec(api.request(tty)).await.unwrap();
    client.start(api.request(start("tty"))).await.unwrap();
    let resize = ResizePtyRequest {
        container_id: "one".into(),
        exec_id: "tty".into(),
        width: 99,
        height: 33,
    };
    client.resize_pty(api.request(resize.clone())).await.unwrap();
    let exit = client.wait(api.request(wait("tty"))).await.unwrap().into_inner();
    assert_eq!(exit.exit_status, 5);
    let nobodys = ResizePtyRequest { exec_id: "nobody".into(), ..resize };
    assert_eq!(code(client.resize_pty(api.request(nobodys)).await), Code::NotFound);
    for exec_id in ["cat", "tty"] {
        let delete = DeleteProcessRequest { container_id: "one".into(), exec_id: exec_id.into() };
        client.delete_process(api.request(delete)).await.unwrap();
    }

    let checkpoint = CheckpointTaskRequest { container_id: "two".into(), ..Default::default() };
    assert_eq!(code(client.checkpoint(api.request(checkpoint.clone())).await), Code::NotFound);
    // With containerd it depends on what is installed.
    if api.engine.flavor() == Flavor::Berth {
        let checkpoint = CheckpointTaskRequest { container_id: "one".into(), ..checkpoint };
        let refused = client.checkpoint(api.request(checkpoint)).await;
        assert_eq!(code(refused), Code::Unimplemented);
    }
}

/// Whoever waits for an exec already hears that nothing comes of it.
#[tokio::test]
async fn execs_that_come_to_nothing_are_waited_for_by_nobody() {
    let api = Api::start().await;
    api.engine.import(&Image::busybox(IMAGE));
    api.engine.ctr(&["run", "-d", IMAGE, "one", "sleep", "1000"]).success();
    let client = api.client(TasksClient::new);
    let waiter = |exec_id: &str| {
        let (mut client, request) = (client.clone(), api.request(wait(exec_id)));
        tokio::spawn(async move { client.wait(request).await })
    };
    let delete = |exec_id: &str| {
        let (container_id, exec_id) = ("one".into(), exec_id.into());
        api.request(DeleteProcessRequest { container_id, exec_id })
    };
    let mut client = client.clone();
    client.exec(api.request(exec("missing", &["no-such-command"]))).await.unwrap();
    let waiting = waiter("missing");
    // Both calls are on one connection: when this one is answered, that one has begun.
    client.get(api.request(get("missing"))).await.unwrap();
    let refused = client.start(api.request(start("missing"))).await.unwrap_err();
    assert!(refused.message().contains("executable file not found"), "{refused}");
    waiting.await.unwrap().unwrap();
    client.wait(api.request(wait("missing"))).await.unwrap();
    client.delete_process(delete("missing")).await.unwrap();

    // With containerd's shim they wait for ever.
    if api.engine.flavor() == Flavor::Berth {
        client.exec(api.request(exec("unwanted", &["true"]))).await.unwrap();
        let waiting = waiter("unwanted");
        client.get(api.request(get("unwanted"))).await.unwrap();
        client.delete_process(delete("unwanted")).await.unwrap();
        waiting.await.unwrap().unwrap();
    }
}

/// The shim of one container, of those of the engine.
fn shim_of(api: &Api, id: &str) -> Pid {
    let is_its = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).any(|word| word == id.as_bytes())
    };
    let shims = leaks::shims(api.engine.namespace());
    let its: Vec<_> = shims.into_iter().filter(is_its).collect();
    assert_eq!(its.len(), 1, "{its:?}");
    Pid::from_raw(its[0])
}

/// Nobody waits for a shim that hangs but who asks for its container.
#[tokio::test]
async fn a_shim_that_hangs_holds_up_no_other() {
    let api = Api::start().await;
    api.engine.import(&Image::busybox(IMAGE));
    for id in ["one", "hung"] {
        api.engine.ctr(&["run", "-d", IMAGE, id, "sleep", "1000"]).success();
    }
    let hung = shim_of(&api, "hung");
    nix::sys::signal::kill(hung, Signal::SIGSTOP).unwrap();
    let mut client = api.client(TasksClient::new);
    let mut asker = client.clone();
    let pause = api.request(PauseTaskRequest { container_id: "hung".into() });
    let asking = tokio::spawn(async move { asker.pause(pause).await });
    for number in 0..10 {
        let id = format!("e{number}");
        client.exec(api.request(exec(&id, &["sh", "-c", "exit 3"]))).await.unwrap();
        client.start(api.request(start(&id))).await.unwrap();
        let exit = client.wait(api.request(wait(&id))).await.unwrap().into_inner();
        assert_eq!(exit.exit_status, 3);
        client.get(api.request(get(&id))).await.unwrap();
        let delete = DeleteProcessRequest { container_id: "one".into(), exec_id: id };
        client.delete_process(api.request(delete)).await.unwrap();
    }
    api.engine.ctr(&["run", "--rm", IMAGE, "new", "true"]).success();
    client.kill(api.request(kill(""))).await.unwrap();
    client.wait(api.request(wait(""))).await.unwrap();
    let delete = DeleteTaskRequest { container_id: "one".into() };
    client.delete(api.request(delete)).await.unwrap();
    if api.engine.flavor() == Flavor::Berth {
        // Lists leave it out, and it is told by name. containerd waits.
        let list = client.list(api.request(ListTasksRequest::default())).await.unwrap();
        assert!(list.into_inner().tasks.is_empty());
        let refused = asking.await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded);
        assert!(refused.message().contains("hung"), "{refused}");
        nix::sys::signal::kill(hung, Signal::SIGCONT).unwrap();
        // What was asked is done all the same.
        let about = GetRequest { container_id: "hung".into(), exec_id: String::new() };
        let state = client.get(api.request(about)).await.unwrap().into_inner().process.unwrap();
        assert_eq!(state.status(), Status::Paused);
    } else {
        nix::sys::signal::kill(hung, Signal::SIGCONT).unwrap();
        asking.await.unwrap().unwrap();
    }
    let resume = ResumeTaskRequest { container_id: "hung".into() };
    client.resume(api.request(resume)).await.unwrap();
}

/// What was asked for is done whole or not at all, and can be asked for again, wherever its client
/// leaves.
#[tokio::test]
async fn tasks_that_are_given_up() {
    let Some(engine) = Engine::berth() else { return };
    let api = Api::of(engine).await;
    api.engine.import(&Image::busybox(IMAGE));
    let client = api.client(TasksClient::new);
    for number in 0..20 {
        let id = format!("c{number}");
        api.engine.ctr(&["containers", "create", IMAGE, &id, "sleep", "1000"]).success();
        let mounts = MountsRequest { snapshotter: "overlayfs".into(), key: id.clone() };
        let mounts = api.client(SnapshotsClient::new).mounts(api.request(mounts)).await.unwrap();
        let rootfs = mounts.into_inner().mounts;
        let create = CreateTaskRequest { container_id: id.clone(), rootfs, ..Default::default() };
        let start = StartRequest { container_id: id.clone(), ..Default::default() };
        let kill = KillRequest { container_id: id.clone(), signal: SIGKILL, ..Default::default() };
        let wait = WaitRequest { container_id: id.clone(), ..Default::default() };
        let delete = DeleteTaskRequest { container_id: id.clone() };
        macro_rules! given_up {
            ($method:ident $request:expr, $($done:pat_param)|+) => {{
                let (mut one, mut other) = (client.clone(), client.clone());
                let request = api.request($request.clone());
                let call = tokio::spawn(async move { drop(one.$method(request).await) });
                // At another stage each time.
                tokio::time::sleep(Duration::from_micros(number * 500)).await;
                call.abort();
                let again = code(other.$method(api.request($request.clone())).await);
                let what = stringify!($method);
                assert!(matches!(again, Code::Ok $(| $done)+), "{what} {number}: {again:?}");
            }};
        }
        given_up!(create create, Code::AlreadyExists);
        given_up!(start start, Code::FailedPrecondition);
        client.clone().kill(api.request(kill)).await.unwrap();
        client.clone().wait(api.request(wait)).await.unwrap();
        given_up!(delete delete, Code::NotFound);
        api.engine.ctr(&["containers", "rm", &id]).success();
    }
}
