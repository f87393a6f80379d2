//! From Create to Shutdown.

use berth_proto::containerd::events::{TaskDelete, TaskExit, TaskStart};
use berth_proto::containerd::task::v3 as api;
use berth_proto::containerd::types::Mount;
use berth_proto::containerd::v1::types::Status;
use berth_ttrpc::Options;
use berth_types::Kind;
use prost::Message;

use crate::rig::{HANGS, Names, Rig};

#[tokio::test]
async fn a_container_lives_and_leaves_nothing() {
    let mut rig = Rig::new().await;
    let pid = rig.create("exit 7", &Names::default()).await.unwrap();
    assert_eq!(rig.status("").await, Status::Created);
    assert_eq!(rig.start("").await.unwrap(), pid);
    assert_eq!(rig.wait("").await, 7);

    let state = rig.state("").await.unwrap();
    assert_eq!((state.status(), state.exit_status, state.pid), (Status::Stopped, 7, pid));
    let record = std::fs::read(rig.bundle().join("exit")).unwrap();
    let record = api::DeleteResponse::decode(&*record).unwrap();
    assert_eq!((record.exit_status, record.exited_at), (7, state.exited_at));

    assert_eq!(rig.delete("").await.unwrap(), record);
    rig.assert_no_cgroup();
    assert!(!rig.bundle().join("exit").exists());
    assert_eq!(rig.state("").await.unwrap_err().kind(), Kind::NotFound);
    let topics = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
    assert_eq!(rig.topics(4).await, topics);

    let request = api::ShutdownRequest { id: rig.id.clone(), now: false };
    rig.call::<_, ()>("Shutdown", &request).await.unwrap();
    assert!(rig.shim.wait().unwrap().success());
    assert!(!rig.path("socket").exists());
}

#[tokio::test]
async fn events_tell_what_happened() {
    let mut rig = Rig::new().await;
    let pid = rig.run("exit 9", &Names::default()).await;
    rig.wait("").await;
    rig.delete("").await.unwrap();
    let (_, _) = rig.event().await;
    let (_, start) = rig.event().await;
    let start = TaskStart::decode(&*start).unwrap();
    assert_eq!((&start.container_id, start.pid), (&rig.id, pid));
    let (_, exit) = rig.event().await;
    let exit = TaskExit::decode(&*exit).unwrap();
    assert_eq!((&exit.container_id, &exit.id), (&rig.id, &rig.id));
    assert_eq!((exit.pid, exit.exit_status), (pid, 9));
    let (_, delete) = rig.event().await;
    let delete = TaskDelete::decode(&*delete).unwrap();
    assert_eq!((delete.exit_status, delete.exited_at), (9, exit.exited_at));
}

#[tokio::test]
async fn an_end_is_never_told_before_its_beginning() {
    for _ in 0..20 {
        let mut rig = Rig::new().await;
        rig.create_with(&["true"], &Names::default()).await.unwrap();
        rig.start("").await.unwrap();
        assert_eq!(rig.topics(3).await, ["/tasks/create", "/tasks/start", "/tasks/exit"]);
    }
}

#[tokio::test]
async fn a_failed_create_leaves_nothing_and_the_next_succeeds() {
    let mut rig = Rig::new().await;
    let error = rig.create_with(&["nosuch"], &Names::default()).await.unwrap_err();
    assert!(error.message().contains("executable file not found"), "{error}");
    rig.assert_no_cgroup();
    assert_eq!(rig.state("").await.unwrap_err().kind(), Kind::NotFound);
    rig.run("exit 0", &Names::default()).await;
    assert_eq!(rig.wait("").await, 0);
    assert_eq!(rig.topics(3).await, ["/tasks/create", "/tasks/start", "/tasks/exit"]);
}

#[tokio::test]
async fn a_shim_has_one_container() {
    let mut rig = Rig::new().await;
    rig.run("sleep 1000", &Names::default()).await;
    let again = rig.create("true", &Names::default()).await.unwrap_err();
    assert_eq!(again.kind(), Kind::AlreadyExists);
    let request = api::StateRequest { id: "another".into(), ..Default::default() };
    let error = rig.call::<_, api::StateResponse>("State", &request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(rig.start("").await.unwrap_err().kind(), Kind::FailedPrecondition);
    assert_eq!(rig.delete("").await.unwrap_err().kind(), Kind::FailedPrecondition);
    let request = api::ShutdownRequest { id: rig.id.clone(), now: true };
    rig.call::<_, ()>("Shutdown", &request).await.unwrap();
    assert_eq!(rig.status("").await, Status::Running);
}

#[tokio::test]
async fn a_container_that_never_started_can_be_deleted() {
    let mut rig = Rig::new().await;
    rig.create("true", &Names::default()).await.unwrap();
    assert_eq!(rig.delete("").await.unwrap().exit_status, 137);
    rig.assert_no_cgroup();
    assert_eq!(rig.topics(3).await, ["/tasks/create", "/tasks/exit", "/tasks/delete"]);
}

#[tokio::test]
async fn execs_come_and_go() {
    let mut rig = Rig::new().await;
    rig.run("sleep 1000", &Names::default()).await;
    rig.exec("one", "exit 3", &Names::default()).await.unwrap();
    let again = rig.exec("one", "true", &Names::default()).await.unwrap_err();
    assert_eq!(again.kind(), Kind::AlreadyExists);
    assert_eq!(rig.kill("one", 15).await.unwrap_err().kind(), Kind::FailedPrecondition);
    let pid = rig.start("one").await.unwrap();
    assert_eq!(rig.wait("one").await, 3);
    assert_eq!(rig.kill("one", 15).await.unwrap_err().kind(), Kind::NotFound);
    let deleted = rig.delete("one").await.unwrap();
    assert_eq!((deleted.exit_status, deleted.pid), (3, pid));
    assert_eq!(rig.state("one").await.unwrap_err().kind(), Kind::NotFound);
    let topics = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
    ];
    assert_eq!(rig.topics(5).await, topics);
}

#[tokio::test]
async fn execs_end_before_their_container() {
    let mut rig = Rig::new().await;
    rig.run("sleep 1000", &Names::default()).await;
    for exec_id in ["a", "b", "c"] {
        rig.exec(exec_id, "sleep 1000", &Names::default()).await.unwrap();
        rig.start(exec_id).await.unwrap();
    }
    rig.topics(8).await;
    rig.kill("", 9).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..4 {
        let (topic, exit) = rig.event().await;
        let exit = TaskExit::decode(&*exit).unwrap();
        assert_eq!((topic.as_str(), exit.exit_status), ("/tasks/exit", 137));
        ids.push(exit.id);
    }
    assert_eq!(ids.pop().as_ref(), Some(&rig.id));
    ids.sort();
    assert_eq!(ids, ["a", "b", "c"]);
}

#[tokio::test]
async fn an_exec_of_a_missing_command_fails_and_can_be_deleted() {
    let mut rig = Rig::new().await;
    rig.run("sleep 1000", &Names::default()).await;
    rig.exec("one", "true", &Names::default()).await.unwrap();
    std::fs::remove_file(rig.bundle().join("rootfs/bin/sh")).unwrap();
    let error = rig.start("one").await.unwrap_err();
    assert!(error.message().contains("executable file not found"), "{error}");
    rig.delete("one").await.unwrap();
    assert_eq!(rig.status("").await, Status::Running);
}

#[tokio::test]
async fn signals_reach_the_init() {
    let mut rig = Rig::new().await;
    rig.run(
        "trap 'exit 5' USR1; echo ready > /tmp/ready; while :; do sleep 0.1; done",
        &Names::default(),
    )
    .await;
    while !rig.bundle().join("rootfs/tmp/ready").exists() {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.kill("", 65).await.unwrap_err().kind(), Kind::InvalidArgument);
    rig.kill("", 10).await.unwrap();
    assert_eq!(rig.wait("").await, 5);
    assert_eq!(rig.kill("", 9).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn both_versions_of_the_service_are_answered() {
    let mut rig = Rig::new().await;
    rig.create("true", &Names::default()).await.unwrap();
    let request = api::ConnectRequest { id: rig.id.clone() };
    let options = Options::timeout(HANGS);
    for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        let response: api::ConnectResponse =
            rig.client.call(service, "Connect", &request, &options).await.unwrap();
        assert_eq!(response.shim_pid, rig.shim.id());
        assert_ne!(response.task_pid, 0);
    }
    let request = api::CheckpointTaskRequest { id: rig.id.clone(), ..Default::default() };
    let error = rig.call::<_, ()>("Checkpoint", &request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unimplemented);
    assert!(error.message().contains("CRIU"), "{error}");
    let call = rig.client.call::<_, ()>("berth.no.Service", "Ping", &(), &options);
    assert_eq!(call.await.unwrap_err().kind(), Kind::Unimplemented);
}

#[tokio::test]
async fn the_shim_has_one_thread_and_no_zombies() {
    let mut rig = Rig::new().await;
    // In the host's pidns the shim is where orphans go.
    let linux = rig.spec.linux.as_mut().unwrap();
    linux.namespaces.retain(|namespace| namespace.kind != "pid");
    rig.run("(sleep 0.05 &) ; (sleep 0.05 &) ; sleep 1000", &Names::default()).await;
    rig.exec("one", "(true &) ; (sleep 0.01 &)", &Names::default()).await.unwrap();
    rig.start("one").await.unwrap();
    rig.wait("one").await;
    rig.until("orphans are not reaped", |rig| rig.children() == 1).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.shim.id())).unwrap();
    assert!(status.contains("Threads:\t1\n"), "{status}");
}

#[tokio::test]
async fn a_container_on_an_overlay_leaves_the_shim_as_it_was() {
    let mut rig = Rig::new().await;
    let root = rig.path("root");
    for directory in ["upper", "work"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::rename(rig.bundle().join("rootfs"), root.join("lower")).unwrap();
    std::fs::create_dir(rig.bundle().join("rootfs")).unwrap();
    let option = |name: &str, directory: &str| format!("{name}={}/{directory}", root.display());
    rig.rootfs = vec![Mount {
        r#type: "overlay".into(),
        source: "overlay".into(),
        options: vec![
            option("lowerdir", "lower"),
            option("upperdir", "upper"),
            option("workdir", "work"),
        ],
        ..Default::default()
    }];
    rig.state("").await.unwrap_err();
    let before = rig.descriptors();
    for _ in 0..3 {
        rig.run("echo kept > /tmp/file", &Names::default()).await;
        assert_eq!(rig.wait("").await, 0);
        rig.delete("").await.unwrap();
        rig.until("a child is left", |rig| rig.children() == 0).await;
        let kept = std::fs::read_to_string(root.join("upper/tmp/file")).unwrap();
        assert_eq!(kept, "kept\n");
    }
    // A second's worth of a connection to the daemon may still be there.
    rig.until("descriptors are left", |rig| rig.descriptors() <= before).await;
}

#[tokio::test]
async fn without_its_init_a_container_in_a_shared_pidns_is_over() {
    let mut rig = Rig::new().await;
    let linux = rig.spec.linux.as_mut().unwrap();
    linux.namespaces.retain(|namespace| namespace.kind != "pid");
    rig.run("sleep 1000 & exit 0", &Names::default()).await;
    assert_eq!(rig.wait("").await, 0);
    rig.delete("").await.unwrap();
    rig.assert_no_cgroup();
}

#[tokio::test]
async fn a_container_can_be_joined_before_its_start_and_not_after_its_end() {
    let mut rig = Rig::new().await;
    rig.create("test -e /tmp/made && exit 4", &Names::default()).await.unwrap();
    rig.exec("early", "echo made > /tmp/made", &Names::default()).await.unwrap();
    rig.start("early").await.unwrap();
    assert_eq!(rig.wait("early").await, 0);
    rig.exec("late", "true", &Names::default()).await.unwrap();
    rig.start("").await.unwrap();
    assert_eq!(rig.wait("").await, 4);
    let refused = rig.start("late").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition);
    assert!(refused.message().contains("init process is not running"), "{refused}");
    let refused = rig.exec("later", "true", &Names::default()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition);
    assert!(refused.message().contains("cannot exec in a stopped state"), "{refused}");
    rig.delete("late").await.unwrap();
    rig.delete("").await.unwrap();
}

#[tokio::test]
async fn execs_of_a_dying_container_start_or_are_refused() {
    for _ in 0..20 {
        let mut rig = Rig::new().await;
        rig.run("sleep 1000", &Names::default()).await;
        for exec_id in ["a", "b", "c"] {
            rig.exec(exec_id, "sleep 1000", &Names::default()).await.unwrap();
        }
        let (first, killed, second, third) =
            tokio::join!(rig.start("a"), rig.kill("", 9), rig.start("b"), rig.start("c"));
        killed.unwrap();
        for (exec_id, started) in [("a", first), ("b", second), ("c", third)] {
            match started {
                Ok(_) => assert_eq!(rig.wait(exec_id).await, 137),
                Err(error) => assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}"),
            }
            rig.delete(exec_id).await.unwrap();
        }
        assert_eq!(rig.wait("").await, 137);
        rig.delete("").await.unwrap();
        rig.assert_no_cgroup();
    }
}
