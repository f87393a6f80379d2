//! Containers outlive the daemon.

use berth_tests::{Engine, Flavor, Image, leaks, wait_until};
use nix::sys::signal::Signal;

const IMAGE: &str = "docker.io/library/busybox:latest";

/// The pid and the state of a task.
fn task(engine: &Engine, id: &str) -> (String, String) {
    let list = engine.ctr(&["tasks", "ls"]).success().stdout;
    let row = list.lines().find(|row| row.starts_with(&format!("{id} "))).unwrap_or_default();
    let mut words = row.split_whitespace().skip(1).map(str::to_owned);
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

#[test]
fn containers_go_on_without_the_daemon() {
    let mut engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    engine.ctr(&["run", "-d", IMAGE, "one", "sleep", "1000"]).success();
    let before = task(&engine, "one");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        engine.stop_daemon(signal);
        engine.start_daemon();
        assert_eq!(task(&engine, "one"), before);
        let exec = engine.ctr(&["tasks", "exec", "--exec-id", signal.as_str(), "one", "echo", "x"]);
        assert_eq!(exec.success().line(), "x");
    }
    engine.ctr(&["tasks", "kill", "-s", "KILL", "one"]).success();
    wait_until("the end", || task(&engine, "one").1 == "STOPPED");
}

#[test]
fn an_exit_without_the_daemon_is_kept() {
    let mut engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    engine.ctr(&["run", "-d", IMAGE, "one", "sh", "-c", "sleep 1; exit 9"]).success();
    let (pid, _) = task(&engine, "one");
    engine.stop_daemon(Signal::SIGKILL);
    wait_until("the container's end", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |stat| stat.contains(") Z"))
    });
    engine.start_daemon();
    assert_eq!(task(&engine, "one").1, "STOPPED");
    engine.ctr(&["tasks", "rm", "one"]).complains("non-zero exit code 9");
    wait_until("the shim's end", || leaks::shims(engine.namespace()).is_empty());
}

/// The labels by which clients let the daemon keep a container running.
#[test]
fn containers_are_kept_as_their_labels_ask() {
    let engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    let label = "containerd.io/restart.status=running";
    engine.ctr(&["run", "-d", "--label", label, IMAGE, "one", "sleep", "1000"]).success();
    let policy = "containerd.io/restart.policy=on-failure:1";
    let flags = ["run", "-d", "--label", label, "--label", policy];
    engine.ctr(&[&flags[..], &[IMAGE, "two", "true"]].concat()).success();
    let (first, _) = task(&engine, "one");
    engine.ctr(&["tasks", "kill", "-s", "KILL", "one"]).success();
    wait_until("a new start", || {
        let (pid, status) = task(&engine, "one");
        status == "RUNNING" && pid != first
    });
    assert_eq!(task(&engine, "two").1, "STOPPED");
    let info = engine.ctr(&["containers", "info", "one"]).success().stdout;
    // Debian's containerd counts only for a policy.
    let counted = info.contains("\"containerd.io/restart.count\": \"1\"");
    assert!(counted || engine.flavor() == Flavor::Containerd, "{info}");

    let label = "containerd.io/restart.status=stopped";
    engine.ctr(&["containers", "label", "one", label]).success();
    wait_until("the end", || task(&engine, "one").1.is_empty());
}
