//! Events and leases through Debian's `ctr`.

use std::fs;

use berth_tests::{Engine, Flavor, Image, wait_until};

const IMAGE: &str = "docker.io/library/busybox:latest";

/// Topics of tasks that `run` publishes, as `ctr events` prints them, by the runtime it is given.
fn task_topics(engine: &Engine, runtime: &[&str]) -> Vec<String> {
    let log = engine.path("events");
    let mut events = engine.ctr_in_background(&["events"], &log);
    let read = || fs::read_to_string(&log).unwrap_or_default();
    // A change of a label says when the subscription is there.
    wait_until("the subscription", || {
        engine.ctr(&["namespaces", "label", engine.namespace(), "probe=1"]).success();
        read().contains("/namespaces/update")
    });
    let run = [&["run", "--rm"], runtime, &[IMAGE, "one", "sh", "-c", "exit 5"]].concat();
    engine.ctr(&run).exited(5);
    wait_until("the last event", || read().contains("/containers/delete"));
    assert!(read().contains("\"exit_status\":5"), "{}", read());
    events.stop(nix::sys::signal::Signal::SIGTERM);
    let topics = read()
        .lines()
        .filter_map(|line| line.split(' ').nth(5))
        .map(str::to_owned)
        .collect::<Vec<_>>();
    topics.into_iter().filter(|topic| topic.starts_with("/tasks/")).collect()
}

#[test]
fn a_tasks_life_is_told_in_order() {
    let engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    let topics = task_topics(&engine, &[]);
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
}

#[test]
fn runcs_own_shim_works_and_its_events_arrive() {
    let engine = Engine::start();
    if engine.flavor() == Flavor::Containerd {
        return; // The test above is this one there.
    }
    engine.import(&Image::busybox(IMAGE));
    let topics = task_topics(&engine, &["--runtime", "/usr/bin/containerd-shim-runc-v2"]);
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
}

#[test]
fn a_lease_is_made_listed_and_deleted() {
    let engine = Engine::start();
    engine.ctr(&["leases", "create", "--id", "mine"]).success();
    assert!(engine.ctr(&["leases", "ls"]).success().stdout.contains("mine"));
    engine.ctr(&["leases", "create", "--id", "mine"]).exited(1).complains("already exists");
    engine.ctr(&["leases", "rm", "mine"]).success();
    assert!(!engine.ctr(&["leases", "ls"]).success().stdout.contains("mine"));
}
