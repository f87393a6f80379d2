//! Tasks under Debian's runc shim: containerd's own implementation of the other end.

#![allow(clippy::unwrap_used)] // A test that can't go on fails.

mod support;

use std::fs;

use berth_proto::containerd::events::TaskExit;
use berth_proto::containerd::task::v3::ExecProcessRequest;
use berth_proto::containerd::v1::types::Status;
use berth_tasks::Create;
use berth_types::Kind;
use prost::Message;
use prost_types::Any;
use support::{House, LONG, parent_of, runs};

fn decode_exit(envelope: &berth_events::Envelope) -> TaskExit {
    TaskExit::decode(&*envelope.event.as_ref().unwrap().value).unwrap()
}

#[tokio::test]
async fn a_task_lives_and_is_told_of() {
    let house = House::new();
    let mut daemon = house.daemon().await;
    let output = house.directory.path().join("output");
    let create = Create {
        stdout: format!("file://{}", output.display()),
        stderr: format!("file://{}", output.display()),
        ..house.container("one", "echo hello; exit 7")
    };
    let task = daemon.tasks.create(create.clone()).await.unwrap();
    assert_eq!(task.state("").await.unwrap().status(), Status::Created);
    let again = daemon.tasks.create(create).await.err().unwrap();
    assert_eq!(again.kind(), Kind::AlreadyExists);

    let pid = task.start("").await.unwrap();
    assert_eq!(task.wait("").await.unwrap().status, 7);
    assert_eq!(task.state("").await.unwrap().status(), Status::Stopped);
    assert_eq!(fs::read_to_string(&output).unwrap(), "hello\n");

    let event = daemon.event("/tasks/exit").await;
    let exit = decode_exit(&event);
    assert_eq!(event.namespace, house.namespace());
    assert_eq!((exit.id.as_str(), exit.pid, exit.exit_status), ("one", pid, 7));
    let deleted = daemon.tasks.delete(house.namespace(), "one").await.unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 7));
    daemon.event("/tasks/delete").await;
    let gone = daemon.tasks.delete(house.namespace(), "one").await.unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
    house.assert_empty();
}

#[tokio::test]
async fn a_running_task_is_driven() {
    let house = House::new();
    let daemon = house.daemon().await;
    let task = daemon.tasks.create(house.container("run", "sleep 1000")).await.unwrap();
    let pid = task.start("").await.unwrap();
    assert_eq!(task.pids().await.unwrap()[0].pid, pid);
    assert!(task.stats().await.unwrap().type_url.contains("Metrics"));
    task.pause().await.unwrap();
    assert_eq!(task.state("").await.unwrap().status(), Status::Paused);
    task.resume().await.unwrap();
    let refused = daemon.tasks.delete(house.namespace(), "run").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition);

    let process = br#"{"args":["/bin/sh","-c","exit 3"],"cwd":"/","user":{"uid":0,"gid":0}}"#;
    let spec = Any { type_url: "types.containerd.io/x".into(), value: process.to_vec() };
    let exec = ExecProcessRequest { exec_id: "e1".into(), spec: Some(spec), ..Default::default() };
    task.exec(exec.clone()).await.unwrap();
    assert_eq!(task.exec(exec).await.unwrap_err().kind(), Kind::AlreadyExists);
    task.start("e1").await.unwrap();
    assert_eq!(task.wait("e1").await.unwrap().status, 3);
    assert_eq!(task.delete_process("e1").await.unwrap().exit_status, 3);
    assert_eq!(task.delete_process("").await.unwrap_err().kind(), Kind::InvalidArgument);

    task.kill("", 9, false).await.unwrap();
    assert_eq!(task.wait("").await.unwrap().status, 137);
    daemon.tasks.delete(house.namespace(), "run").await.unwrap();
    house.assert_empty();
}

#[tokio::test]
async fn a_dead_shim_takes_its_container_along() {
    let house = House::new();
    let mut daemon = house.daemon().await;
    let task = daemon.tasks.create(house.container("orphan", "sleep 1000")).await.unwrap();
    let pid = task.start("").await.unwrap();
    let shim = rustix::process::Pid::from_raw(parent_of(pid) as i32).unwrap();
    let waiting = {
        let task = task.clone();
        tokio::spawn(async move { task.wait("").await })
    };
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    let exit = decode_exit(&daemon.event("/tasks/exit").await);
    assert_eq!((exit.pid, exit.exit_status), (pid, 137));
    daemon.event("/tasks/delete").await;
    let waited = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(waited.status, 137);
    tokio::time::timeout(LONG, task.ended()).await.unwrap();
    assert!(daemon.tasks.get(house.namespace(), "orphan").is_err());
    assert!(!runs(pid));
    house.assert_empty();
}

/// Runs what a daemon does and ends it as abruptly as a signal would.
fn short_lived<T>(life: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(life)
}

#[test]
fn the_next_daemon_takes_over() {
    let house = House::new();
    let (live, dead) = short_lived(async {
        let daemon = house.daemon().await;
        let live = daemon.tasks.create(house.container("live", "sleep 1000")).await.unwrap();
        let ended = daemon.tasks.create(house.container("ended", "exit 5")).await.unwrap();
        let dead = daemon.tasks.create(house.container("dead", "sleep 1000")).await.unwrap();
        ended.start("").await.unwrap();
        ended.wait("").await.unwrap();
        (live.start("").await.unwrap(), dead.start("").await.unwrap())
    });
    let shim = rustix::process::Pid::from_raw(parent_of(dead) as i32).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    short_lived(async {
        let mut daemon = house.daemon().await;
        let tasks = daemon.tasks.list(house.namespace());
        let ids: Vec<_> = tasks.iter().map(|task| task.id()).collect();
        assert_eq!(ids, ["ended", "live"]);
        let mut exits = Vec::new();
        while exits.len() < 2 {
            let exit = decode_exit(&daemon.event("/tasks/exit").await);
            exits.push((exit.id, exit.exit_status));
        }
        exits.sort();
        assert_eq!(exits, [("dead".to_owned(), 137), ("ended".to_owned(), 5)]);
        assert!(!runs(dead));

        let task = daemon.tasks.get(house.namespace(), "live").unwrap();
        assert_eq!(task.state("").await.unwrap().pid, live);
        task.kill("", 9, false).await.unwrap();
        task.wait("").await.unwrap();
        for id in ["live", "ended"] {
            daemon.tasks.delete(house.namespace(), id).await.unwrap();
        }
    });
    house.assert_empty();
}

#[test]
fn the_next_daemon_asks_a_shim_again_that_hangs() {
    let house = House::new();
    let shim = short_lived(async {
        let mut daemon = house.daemon().await;
        let task = daemon.tasks.create(house.container("slow", "exit 5")).await.unwrap();
        let shim = parent_of(task.pid());
        task.start("").await.unwrap();
        // The shim has told of it and will not do so again.
        daemon.event("/tasks/exit").await;
        rustix::process::Pid::from_raw(shim as i32).unwrap()
    });
    let signal = |signal| rustix::process::kill_process(shim, signal).unwrap();
    signal(rustix::process::Signal::STOP);
    short_lived(async {
        let mut daemon = house.daemon().await;
        assert!(daemon.tasks.get(house.namespace(), "slow").is_ok());
        signal(rustix::process::Signal::CONT);
        let exit = decode_exit(&daemon.event("/tasks/exit").await);
        assert_eq!((exit.id.as_str(), exit.exit_status), ("slow", 5));
        daemon.tasks.delete(house.namespace(), "slow").await.unwrap();
    });
    house.assert_empty();
}

#[test]
fn the_next_daemon_finds_a_shim_whose_address_was_damaged() {
    let house = House::new();
    let pid = short_lived(async {
        let daemon = house.daemon().await;
        let task = daemon.tasks.create(house.container("live", "sleep 1000")).await.unwrap();
        task.start("").await.unwrap()
    });
    let bundles = house.config().state.join("io.containerd.runtime.v2.task");
    let bundle = bundles.join(house.namespace()).join("live");
    std::fs::write(bundle.join("bootstrap.json"), "{").unwrap();
    short_lived(async {
        let daemon = house.daemon().await;
        let task = daemon.tasks.get(house.namespace(), "live").unwrap();
        assert_eq!(task.pid(), pid);
        task.kill("", 9, false).await.unwrap();
        task.wait("").await.unwrap();
        daemon.tasks.delete(house.namespace(), "live").await.unwrap();
    });
    house.assert_empty();
}

#[tokio::test]
async fn what_cannot_be_made_leaves_nothing() {
    let house = House::new();
    let daemon = house.daemon().await;
    let missing = Create {
        spec: String::from_utf8(house.container("bad", "true").spec)
            .unwrap()
            .replace("/bin/sh", "/bin/absent")
            .into_bytes(),
        ..house.container("bad", "true")
    };
    let error = daemon.tasks.create(missing).await.err().unwrap();
    assert!(error.message().contains("no such file or directory"), "{error}");
    house.assert_empty();

    let unknown = Create { runtime: "io.absent.v1".into(), ..house.container("bad", "true") };
    assert_eq!(daemon.tasks.create(unknown).await.err().unwrap().kind(), Kind::NotFound);
    let bad_id = Create { id: "../x".into(), ..house.container("bad", "true") };
    assert_eq!(daemon.tasks.create(bad_id).await.err().unwrap().kind(), Kind::InvalidArgument);
    let no_shim = Create { runtime: "/bin/false".into(), ..house.container("bad", "true") };
    assert_eq!(daemon.tasks.create(no_shim).await.err().unwrap().kind(), Kind::Internal);
    house.assert_empty();
}

#[tokio::test]
async fn an_abandoned_create_still_ends() {
    let house = House::new();
    let mut daemon = house.daemon().await;
    let create = daemon.tasks.create(house.container("kept", "sleep 1000"));
    assert!(tokio::time::timeout(std::time::Duration::ZERO, create).await.is_err());
    daemon.event("/tasks/create").await;
    // The event comes before the answer, so the task may be a moment away.
    let task = loop {
        match daemon.tasks.get(house.namespace(), "kept") {
            Ok(task) => break task,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    task.kill("", 9, false).await.unwrap();
    task.wait("").await.unwrap();
    daemon.tasks.delete(house.namespace(), "kept").await.unwrap();
    house.assert_empty();
}
