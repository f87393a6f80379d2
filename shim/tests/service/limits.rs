//! What goes through the container's control group.

use std::fs;

use berth_proto::containerd::runc::v1 as runc;
use berth_proto::containerd::task::v3 as api;
use berth_proto::containerd::v1::types::Status;
use berth_proto::io::containerd::cgroups::{v1, v2};
use berth_sys::cgroup::{Cgroup, Hierarchies, Version};
use berth_types::Kind;
use berth_types::spec::{Memory, Resources};
use prost::{Message, Name};
use prost_types::Any;

use crate::rig::{Names, Rig};

async fn pause(rig: &Rig) -> berth_types::Result<()> {
    rig.call("Pause", &api::PauseRequest { id: rig.id.clone() }).await
}

async fn resume(rig: &Rig) -> berth_types::Result<()> {
    rig.call("Resume", &api::ResumeRequest { id: rig.id.clone() }).await
}

#[tokio::test]
async fn a_container_can_be_paused_and_killed_so() {
    let mut rig = Rig::new().await;
    rig.create("sleep 1000", &Names::default()).await.unwrap();
    assert_eq!(pause(&rig).await.unwrap_err().kind(), Kind::FailedPrecondition);
    rig.start("").await.unwrap();
    assert_eq!(resume(&rig).await.unwrap_err().kind(), Kind::FailedPrecondition);
    pause(&rig).await.unwrap();
    assert_eq!(rig.status("").await, Status::Paused);
    assert_eq!(pause(&rig).await.unwrap_err().kind(), Kind::FailedPrecondition);
    resume(&rig).await.unwrap();
    assert_eq!(rig.status("").await, Status::Running);
    pause(&rig).await.unwrap();
    rig.kill("", 9).await.unwrap();
    assert_eq!(rig.wait("").await, 137);
    let topics = ["/tasks/create", "/tasks/start", "/tasks/paused", "/tasks/resumed"];
    assert_eq!(rig.topics(6).await[..4], topics);
}

#[tokio::test]
async fn a_paused_container_takes_no_exec() {
    let mut rig = Rig::new().await;
    rig.run("sleep 1000", &Names::default()).await;
    rig.exec("before", "exit 3", &Names::default()).await.unwrap();
    pause(&rig).await.unwrap();
    let refused = rig.exec("one", "true", &Names::default()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition);
    assert!(refused.message().contains("cannot exec in a paused state"), "{refused}");
    let refused = rig.start("before").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition);
    resume(&rig).await.unwrap();
    rig.start("before").await.unwrap();
    assert_eq!(rig.wait("before").await, 3);
}

/// A container that makes control groups of its own hands its group's controllers to them, and
/// then the group takes no further process.
#[tokio::test]
async fn an_exec_goes_where_the_first_process_went() {
    if Hierarchies::discover().unwrap().version() != Version::V2 {
        eprintln!("skipped: control groups of v1 take processes on every level");
        return;
    }
    let mut rig = Rig::new().await;
    let init = rig.run("sleep 1000", &Names::default()).await;
    let place = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group = place(init).trim().replacen("0::", "/sys/fs/cgroup", 1);
    let inner = format!("{group}/inner");
    fs::create_dir(&inner).unwrap();
    fs::write(format!("{inner}/cgroup.procs"), init.to_string()).unwrap();
    fs::write(format!("{group}/cgroup.subtree_control"), "+pids").unwrap();
    rig.exec("one", "sleep 1000", &Names::default()).await.unwrap();
    let exec = rig.start("one").await.unwrap();
    assert_eq!(place(exec), place(init));
    assert!(place(exec).trim().ends_with("/inner"));
}

#[tokio::test]
async fn processes_are_listed_with_their_execs() {
    let mut rig = Rig::new().await;
    let init = rig.run("sleep 1000", &Names::default()).await;
    rig.exec("one", "sleep 1000", &Names::default()).await.unwrap();
    let exec = rig.start("one").await.unwrap();
    let request = api::PidsRequest { id: rig.id.clone() };
    let response: api::PidsResponse = rig.call("Pids", &request).await.unwrap();
    let find = |pid| response.processes.iter().find(|process| process.pid == pid).unwrap();
    assert!(find(init).info.is_none());
    let info = find(exec).info.as_ref().unwrap();
    assert_eq!(info.type_url, "containerd.runc.v1.ProcessDetails");
    // Its only field is the exec's id.
    assert_eq!(String::decode(&*info.value).unwrap(), "one");
}

/// The memory limit and the number of processes, by either version of control groups.
async fn figures(rig: &Rig) -> (u64, u64) {
    let request = api::StatsRequest { id: rig.id.clone() };
    let response: api::StatsResponse = rig.call("Stats", &request).await.unwrap();
    let stats = response.stats.unwrap();
    if stats.type_url == v1::Metrics::full_name() {
        let metrics = v1::Metrics::decode(&*stats.value).unwrap();
        let limit = metrics.memory.unwrap().usage.unwrap().limit;
        (limit, metrics.pids.unwrap().current)
    } else {
        assert_eq!(stats.type_url, v2::Metrics::full_name());
        let metrics = v2::Metrics::decode(&*stats.value).unwrap();
        (metrics.memory.unwrap().usage_limit, metrics.pids.unwrap().current)
    }
}

#[tokio::test]
async fn the_shim_enters_the_control_group_of_its_options() {
    let mut rig = Rig::new().await;
    let path = format!("/{}-shim", rig.id);
    let cgroup = Cgroup::open(path.as_ref()).unwrap();
    rig.options = Some(options(&runc::Options { shim_cgroup: path.clone(), ..Default::default() }));
    let error = rig.create("sleep 1000", &Names::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.message().contains("ShimCgroup"), "{error}");
    cgroup.make().unwrap();
    let init = rig.run("sleep 1000", &Names::default()).await;
    let inside = cgroup.pids().unwrap();
    assert!(inside.contains(&(rig.shim.id() as i32)), "{inside:?}");
    assert_eq!(figures(&rig).await.1, 1);
    let own = Cgroup::open(format!("/{}", rig.id).as_ref()).unwrap();
    assert!(own.pids().unwrap().contains(&(init as i32)));
    rig.shim.kill().unwrap();
    rig.shim.wait().unwrap();
    rig.clean_up();
    cgroup.remove().unwrap();
}

#[tokio::test]
async fn a_driver_that_is_not_there_is_refused_by_name() {
    let mut rig = Rig::new().await;
    rig.options = Some(options(&runc::Options { systemd_cgroup: true, ..Default::default() }));
    let error = rig.create("true", &Names::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unimplemented);
    assert!(error.message().contains("SystemdCgroup"), "{error}");
    rig.options = None;
    let linux = rig.spec.linux.as_mut().unwrap();
    linux.cgroups_path = Some("system.slice:berth:a".to_owned());
    let error = rig.create("true", &Names::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(error.message().contains("linux.cgroupsPath"), "{error}");
}

fn options(options: &runc::Options) -> Any {
    Any { type_url: runc::Options::full_name(), value: options.encode_to_vec() }
}

fn memory(limit: i64) -> Resources {
    Resources {
        memory: Some(Memory { limit: Some(limit), ..Default::default() }),
        ..Default::default()
    }
}

#[tokio::test]
async fn limits_are_told_and_changed() {
    let mut rig = Rig::new().await;
    rig.spec.linux.as_mut().unwrap().resources = Some(memory(64 << 20));
    rig.run("sleep 1000", &Names::default()).await;
    assert_eq!(figures(&rig).await, (64 << 20, 1));
    let update = |value| api::UpdateTaskRequest {
        id: rig.id.clone(),
        resources: Some(Any { type_url: String::new(), value }),
        ..Default::default()
    };
    let larger = update(serde_json::to_vec(&memory(128 << 20)).unwrap());
    rig.call::<_, ()>("Update", &larger).await.unwrap();
    assert_eq!(figures(&rig).await.0, 128 << 20);
    let nonsense = update(b"{".to_vec());
    let error = rig.call::<_, ()>("Update", &nonsense).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
}

#[tokio::test]
async fn want_of_memory_is_told_before_the_exit_that_it_caused() {
    for _ in 0..5 {
        let mut rig = Rig::new().await;
        rig.spec.linux.as_mut().unwrap().resources = Some(memory(8 << 20));
        rig.create_with(&["tail", "/dev/zero"], &Names::default()).await.unwrap();
        rig.start("").await.unwrap();
        assert_eq!(rig.wait("").await, 137);
        let topics = ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"];
        assert_eq!(rig.topics(4).await, topics);
    }
}

#[tokio::test]
async fn want_of_memory_of_a_child_is_told() {
    let mut rig = Rig::new().await;
    rig.spec.linux.as_mut().unwrap().resources = Some(memory(8 << 20));
    rig.run("tail /dev/zero; sleep 1000", &Names::default()).await;
    assert_eq!(rig.topics(3).await, ["/tasks/create", "/tasks/start", "/tasks/oom"]);
    assert_eq!(rig.status("").await, Status::Running);
}
