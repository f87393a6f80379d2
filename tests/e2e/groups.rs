//! Containers of one group, as those of a pod, share a shim.

use berth_tests::{Engine, Image, leaks, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const IMAGE: &str = "docker.io/library/busybox:latest";

fn run(engine: &Engine, id: &str, annotation: &str) {
    let flags = ["run", "-d", "--annotation", annotation, IMAGE, id, "sleep", "1000"];
    engine.ctr(&flags).success();
}

fn status(engine: &Engine, id: &str) -> String {
    let list = engine.ctr(&["tasks", "ls"]).success().stdout;
    let row = list.lines().find(|row| row.split_whitespace().next() == Some(id));
    row.and_then(|row| row.split_whitespace().last()).unwrap_or_default().to_owned()
}

fn remove(engine: &Engine, id: &str) {
    engine.ctr(&["tasks", "rm", "-f", id]).success();
    engine.ctr(&["containers", "rm", id]).success();
}

#[test]
fn a_shim_stays_for_as_long_as_its_group_has_containers() {
    let mut engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    let pod = "io.kubernetes.cri.sandbox-id=pod";
    run(&engine, "one", pod);
    run(&engine, "two", pod);
    run(&engine, "other", "io.kubernetes.cri.sandbox-id=other");
    assert_eq!(leaks::shims(engine.namespace()).len(), 2);

    // The shim was started for this one.
    remove(&engine, "one");
    engine.stop_daemon(Signal::SIGKILL);
    engine.start_daemon();
    assert_eq!(status(&engine, "two"), "RUNNING");
    run(&engine, "three", "io.containerd.runc.v2.group=pod");
    run(&engine, "one", pod);
    assert_eq!(leaks::shims(engine.namespace()).len(), 2);
    let exec = engine.ctr(&["tasks", "exec", "--exec-id", "x", "three", "echo", "on"]);
    assert_eq!(exec.success().line(), "on");

    for id in ["two", "three", "one"] {
        assert_eq!(status(&engine, id), "RUNNING");
        remove(&engine, id);
    }
    wait_until("the shim's end", || leaks::shims(engine.namespace()).len() == 1);
}

#[test]
fn a_group_dies_with_its_shim() {
    let engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    for id in ["one", "two"] {
        run(&engine, id, "io.kubernetes.cri.sandbox-id=pod");
    }
    let [shim] = leaks::shims(engine.namespace())[..] else { panic!("not one shim") };
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    wait_until("the cleanup", || {
        ["one", "two"].iter().all(|id| matches!(&*status(&engine, id), "" | "STOPPED"))
    });
    // A new container of the group gets a new shim.
    run(&engine, "three", "io.kubernetes.cri.sandbox-id=pod");
    assert_eq!(status(&engine, "three"), "RUNNING");
}

/// A container that can't be made leaves the shim, and the others in it, as they were.
#[test]
fn a_failed_container_leaves_its_group_as_it_was() {
    let engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    let pod = "io.kubernetes.cri.sandbox-id=pod";
    run(&engine, "one", pod);
    let run = ["run", "-d", "--annotation", pod, IMAGE, "bad", "/no/such/command"];
    engine.ctr(&run).exited(1);
    assert_eq!(status(&engine, "one"), "RUNNING");
    assert_eq!(leaks::shims(engine.namespace()).len(), 1);
}
