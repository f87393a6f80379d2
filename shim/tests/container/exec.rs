//! Further processes in a container.

use std::fs;

use berth_types::Kind;
use berth_types::spec::Process;

use crate::rig::{Output, Rig, Streams, block_on, kill, wait};
use containerd_shim_berth_v1::container::Container;

crate::cases![
    an_exec_is_inside,
    an_exec_has_the_containers_rights,
    an_exec_is_in_the_containers_control_group,
    a_missing_command_leaves_nothing,
    an_exec_into_a_dead_container_is_refused,
    an_exec_into_a_paused_container_is_refused,
    an_exec_ends_with_its_container,
    what_an_exec_leaves_is_killed,
];

async fn exec(container: &Container, process: &Process, line: &str) -> Output {
    let streams = Streams::new();
    let args = ["sh", "-c", line].map(str::to_owned).to_vec();
    let process = Process { args, ..process.clone() };
    let process = container.exec(&process, streams.io()).await.unwrap();
    streams.output(wait(&process))
}

fn an_exec_is_inside() {
    let mut rig = Rig::new();
    rig.spec.hostname = Some("inside".into());
    rig.process().cwd = "/tmp".into();
    let process = rig.spec.process.clone().unwrap();
    rig.with_sleeper(async |container| {
        let line = "hostname; pwd; ps | grep -c sleep; for n in pid mnt net uts ipc cgroup; do \
                    readlink /proc/self/ns/$n; done";
        let output = exec(container, &process, line).await;
        let lines: Vec<&str> = output.text().lines().collect();
        assert_eq!(lines[0..2], ["inside", "/tmp"]);
        for (line, name) in lines[3..].iter().zip(["pid", "mnt", "net", "uts", "ipc", "cgroup"]) {
            let theirs =
                fs::read_link(format!("/proc/{}/ns/{name}", container.init().pid)).unwrap();
            assert_eq!(*line, theirs.to_str().unwrap());
        }
    });
    let children = fs::read_link("/proc/self/ns/pid_for_children").unwrap();
    assert_eq!(children, fs::read_link("/proc/self/ns/pid").unwrap());
}

fn an_exec_has_the_containers_rights() {
    let mut rig = Rig::new();
    let process = rig.spec.process.clone().unwrap();
    rig.with_sleeper(async |container| {
        let output = exec(container, &process, "grep -E '^(Cap|Seccomp:)' /proc/self/status").await;
        let docker = "00000000a80425fb";
        for line in output.text().lines().skip(1).take(3) {
            assert!(line.ends_with(docker), "{line}");
        }
        assert!(output.text().contains("CapInh:\t0000000000000000"));
        assert!(output.text().ends_with("Seccomp:\t2"), "{output:?}");
        let mut user = process.clone();
        user.user.username = Some("app".into());
        let output = exec(container, &user, "id -u; echo $HOME; ls /proc/self/fd").await;
        assert_eq!(output.text(), "1000\n/srv/app\n0\n1\n2\n3");
    });
}

fn an_exec_is_in_the_containers_control_group() {
    let mut rig = Rig::new();
    let process = rig.spec.process.clone().unwrap();
    rig.with_sleeper(async |container| {
        let streams = Streams::new();
        let args = ["sleep", "1000"].map(str::to_owned).to_vec();
        let process = Process { args, ..process };
        let process = container.exec(&process, streams.io()).await.unwrap();
        let of = |pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert_eq!(of(process.pid), of(container.init().pid));
        assert!(container.cgroup().pids().unwrap().contains(&process.pid));
        kill(container);
        assert_eq!(wait(&process), Some(137));
    });
}

fn a_missing_command_leaves_nothing() {
    let mut rig = Rig::new();
    let process = rig.spec.process.clone().unwrap();
    rig.with_sleeper(async |container| {
        let process = Process { args: vec!["nothing-of-that-name".into()], ..process };
        let error = container.exec(&process, Streams::new().io()).await.unwrap_err();
        assert!(error.message().contains("executable file not found in $PATH"), "{error}");
        assert_eq!(container.cgroup().pids().unwrap(), [container.init().pid]);
    });
}

fn an_exec_into_a_dead_container_is_refused() {
    block_on(async {
        let mut rig = Rig::new();
        let mut container = rig.create(&["true"], &Streams::new()).await.unwrap();
        container.start().await.unwrap();
        wait(container.init());
        let process = rig.spec.process.clone().unwrap();
        let error = container.exec(&process, Streams::new().io()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
        container.destroy().await.unwrap();
    });
}

fn an_exec_into_a_paused_container_is_refused() {
    let mut rig = Rig::new();
    let process = rig.spec.process.clone().unwrap();
    rig.with_sleeper(async |container| {
        while !container.cgroup().freeze().unwrap() {}
        let process = Process { args: vec!["true".into()], ..process };
        let error = container.exec(&process, Streams::new().io()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
        container.cgroup().thaw().unwrap();
        let process = container.exec(&process, Streams::new().io()).await.unwrap();
        assert_eq!(wait(&process), Some(0));
    });
}

fn an_exec_ends_with_its_container() {
    let mut rig = Rig::new();
    let process = rig.spec.process.clone().unwrap();
    rig.with_sleeper(async |container| {
        let args = ["sleep", "1000"].map(str::to_owned).to_vec();
        let process = Process { args, ..process };
        let process = container.exec(&process, Streams::new().io()).await.unwrap();
        kill(container);
        assert_eq!(wait(&process), Some(137));
    });
}

fn what_an_exec_leaves_is_killed() {
    block_on(async {
        let mut rig = Rig::new();
        // Without a pidns of its own nothing dies with the first process.
        rig.linux().namespaces.retain(|namespace| namespace.kind != "pid");
        let streams = Streams::new();
        let mut container = rig
            .create(&["sh", "-c", "sleep 1000 > /dev/null 2>&1 & echo left"], &streams)
            .await
            .unwrap();
        container.start().await.unwrap();
        let status = wait(container.init());
        assert_eq!(streams.output(status).text(), "left");
        assert_eq!(container.cgroup().pids().unwrap().len(), 1);
        container.destroy().await.unwrap();
    });
}
