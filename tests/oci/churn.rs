//! Many commands at once, on many containers and on one.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use berth_tests::{Finished, noise, wait_until};
use serde_json::json;

use crate::rig::{Rig, Runtime, on_both, on_ours, rounds};

/// runtime.md, "Lifecycle": containers come and go, 32 at a time, without a failure, and leave
/// nothing. `CHURN` says how many.
#[test]
fn containers_come_and_go() {
    const AT_ONCE: u32 = 32;
    on_ours("it takes too long", |rig| {
        rig.spec["process"]["args"] = json!(["sleep", "1000"]);
        // One for each, with a parent that comes and goes with its children.
        rig.spec["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        rig.write_spec();
        let (next, count) = (AtomicU32::new(0), rounds("CHURN", 1000));
        let rig = &*rig;
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return;
                        }
                        come_and_go(rig, &format!("{}-{number}", rig.id));
                    }
                });
            }
        });
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let groups = fs::read_dir(hierarchy.path().join("berth")).into_iter().flatten();
            let names = groups.flatten().map(|entry| entry.file_name().into_string().unwrap());
            let left: Vec<String> = names.filter(|name| name.starts_with(&rig.id)).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    });
}

fn come_and_go(rig: &Rig, id: &str) {
    rig.call(&["create", id]).success();
    rig.call(&["start", id]).success();
    rig.call(&["kill", id, "KILL"]).success();
    rig.call(&["delete", "--force", id]).success();
}

/// What a command may say of a container that others are at work on.
const LEGAL: [&str; 15] = [
    "does not exist",
    "exists already",
    "already running container",
    "container that has stopped",
    "cannot exec in a stopped container",
    "container not running",
    "container is not running",
    "container in the paused state",
    "container not paused",
    "is paused",
    "paused already",
    "first process was killed",
    "another command is at work",
    "process of the container is gone",
    "was started before",
];

/// runtime.md, "Lifecycle": whatever others do to a container at the same time, each operation
/// succeeds or has an error of its own kind, and in the end all can be deleted.
#[test]
fn one_container_for_many() {
    const AT_ONCE: u64 = 4;
    on_ours("it has no locks", |rig| {
        rig.spec["process"]["args"] = json!(["sleep", "1000"]);
        rig.write_spec();
        let rounds = rounds("HISTORIES", 40) as usize;
        let rig = &*rig;
        let seed = u64::from(std::process::id());
        std::thread::scope(|scope| {
            for thread in 0..AT_ONCE {
                scope.spawn(move || {
                    noise(seed + thread, rounds).iter().for_each(|byte| act(rig, *byte));
                });
            }
        });
        rig.verb(&["delete", "--force"]).success();
    });
}

fn act(rig: &Rig, choice: u8) {
    let id = rig.id.as_str();
    let args: &[&str] = match choice % 16 {
        0..4 => &["create", id],
        4..8 => &["start", id],
        8 | 9 => &["exec", id, "true"],
        10 => &["kill", id, "KILL"],
        11 | 12 => {
            // Nobody may be left in the middle of a start with all others waiting for it.
            legal(rig, &["pause", id]);
            &["resume", id]
        }
        13 => &["delete", id],
        14 => &["delete", "--force", id],
        _ => &["state", id],
    };
    legal(rig, args);
}

fn legal(rig: &Rig, args: &[&str]) {
    let done = rig.call(args);
    // A process that joins may be killed with the others.
    let killed = args[0] == "exec" && done.code == 137;
    let legal = done.code == 0 || killed || LEGAL.iter().any(|words| done.stderr.contains(words));
    let not_stopped =
        args == ["delete", rig.id.as_str()] && done.stderr.contains("that is not stopped");
    assert!(legal || not_stopped, "{args:?}: {}: {}", done.code, done.stderr);
}

/// runtime.md, "Start": a container is started once, whoever asks at the same time.
#[test]
fn one_of_many_starts() {
    on_ours("its second one fails in words of the kernel's", |rig| {
        for _ in 0..10 {
            let _ = fs::remove_file(rig.root().join("count"));
            rig.create(&["sh", "-c", "echo started >> /count; exec sleep 1000"]).success();
            let rig = &*rig;
            let starts: Vec<Finished> = std::thread::scope(|scope| {
                let all = Vec::from_iter((0..4).map(|_| scope.spawn(|| rig.verb(&["start"]))));
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let successes = starts.iter().filter(|start| start.code == 0).count();
            assert_eq!(successes, 1, "{starts:?}");
            wait_until("the program", || rig.root().join("count").exists());
            rig.verb(&["delete", "--force"]).success();
            assert_eq!(fs::read_to_string(rig.root().join("count")).unwrap(), "started\n");
        }
    });
}

/// runtime.md, "Create": of all who want an id at the same time one gets it.
#[test]
fn one_of_many_creates() {
    on_ours("all may fail", |rig| {
        rig.spec["process"]["args"] = json!(["sleep", "1000"]);
        rig.write_spec();
        for _ in 0..5 {
            let rig = &*rig;
            let creates: Vec<Finished> = std::thread::scope(|scope| {
                let all = Vec::from_iter((0..8).map(|_| scope.spawn(|| rig.verb(&["create"]))));
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let successes = creates.iter().filter(|create| create.code == 0).count();
            assert_eq!(successes, 1, "{creates:?}");
            assert_eq!(rig.state()["status"], "created");
            rig.verb(&["delete", "--force"]).success();
            rig.assert_nothing_left();
        }
    });
}

/// runc-exec: many processes that join and end leave nothing, no zombie and no process.
#[test]
fn processes_that_joined_leave_nothing() {
    on_both(|rig| {
        // The other one would take too long.
        let rounds = match rig.runtime {
            Runtime::Berth => rounds("EXECS", 30),
            Runtime::Runc => 30,
        };
        rig.with_sleeper(|rig| {
            for round in 0..rounds {
                match round % 3 {
                    0 => rig.call(&["exec", &rig.id, "true"]).exited(0),
                    1 => rig.call(&["exec", "--detach", &rig.id, "true"]).exited(0),
                    _ => rig.call(&["exec", &rig.id, "nothing-like-it"]).complains("not found"),
                };
            }
            let first: i64 = rig.state()["pid"].as_i64().unwrap();
            let namespace = fs::read_link(format!("/proc/{first}/ns/pid")).unwrap();
            // Whoever adopts processes on this machine may take its time.
            wait_until("the processes to be gone", || inhabitants(&namespace) == [first]);
        });
    });
}

/// The processes in the pidns `namespace`, zombies too.
fn inhabitants(namespace: &Path) -> Vec<i64> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let inside = all.filter(|entry| {
        fs::read_link(entry.path().join("ns/pid")).is_ok_and(|theirs| theirs == namespace)
    });
    inside.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
