//! What a runtime must survive: being killed, running out of processes and memory, processes that
//! can't be killed.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_tests::{Running, wait_until};
use serde_json::json;

use crate::rig::{Rig, machine_has, on_both, on_ours, rounds};

/// Starts a command of the runtime.
fn start(rig: &Rig, args: &[&str]) -> Child {
    let mut command = rig.command();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Kills a command at as many moments as there are rounds, from its start to past its usual end,
/// and then has `judge` look.
fn kill_at_moments(rig: &Rig, prepare: impl Fn(&Rig), args: &[&str], judge: impl Fn(&Rig)) {
    prepare(rig);
    let begun = Instant::now();
    start(rig, args).wait().unwrap();
    let usual = begun.elapsed();
    judge(rig);
    let rounds = rounds("KILLS", 40);
    for round in 0..rounds {
        prepare(rig);
        let mut command = start(rig, args);
        std::thread::sleep(usual * round / rounds * 5 / 4);
        command.kill().unwrap();
        command.wait().unwrap();
        judge(rig);
    }
}

/// Processes that are the runtime's still, or never became a program: those with its command line.
fn unborn(rig: &Rig) -> Vec<i32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let text = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| text(pid).contains(&format!("{}/state\0", rig.bundle().display()))).collect()
}

#[track_caller]
fn deletes_all(rig: &Rig) {
    rig.verb(&["delete", "--force"]).success();
    rig.assert_nothing_left();
    wait_until("the end of what was being made", || unborn(rig).is_empty());
}

/// runtime.md, "Create" and "Delete": what a killed `create` leaves is no container, or one that
/// can be deleted; its id is free then.
#[test]
fn create_is_killed() {
    on_ours("it leaves control groups that nobody finds", |rig| {
        rig.spec["process"]["args"] = json!(["sleep", "1000"]);
        rig.write_spec();
        kill_at_moments(rig, |_| {}, &["create", &rig.id], deletes_all);
        // The next one of that name makes do without a `delete`.
        for _ in 0..5 {
            let mut create = start(rig, &["create", &rig.id]);
            std::thread::sleep(Duration::from_millis(4));
            create.kill().unwrap();
            create.wait().unwrap();
            wait_until("the id", || {
                rig.verb(&["create"]).code == 0 || rig.verb(&["state"]).code == 0
            });
            deletes_all(rig);
        }
    });
}

/// As above, where the creator is killed while a hook of the container's runs.
#[test]
fn create_is_killed_in_a_hook() {
    on_ours("it leaves control groups that nobody finds", |rig| {
        let begun = rig.bundle().join("begun");
        // What runs on the host's side goes on to its own end.
        let line = format!(": > {}; exec sleep 5", begun.display());
        for stage in ["createContainer", "createRuntime", "prestart"] {
            let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", line] }]);
            rig.spec["hooks"] = json!({ stage: hook });
            rig.write_spec();
            let mut create = start(rig, &["create", &rig.id]);
            wait_until("the hook", || begun.exists());
            create.kill().unwrap();
            create.wait().unwrap();
            rig.verb(&["state"]).exited(1).complains("does not exist");
            deletes_all(rig);
            fs::remove_file(&begun).unwrap();
        }
    });
}

/// A killed `start`, `delete` or `exec` leaves a container that can be used and deleted.
#[test]
fn other_commands_are_killed() {
    on_ours("it has other moments", |rig| {
        rig.spec["process"]["args"] = json!(["sleep", "1000"]);
        rig.write_spec();
        let create = |rig: &Rig| drop(rig.verb(&["create"]).success());
        kill_at_moments(rig, create, &["start", &rig.id], |rig| {
            // The word to start may be on its way.
            if rig.state()["status"] == "created" && rig.verb(&["start"]).code != 0 {
                assert_ne!(rig.state()["status"], "stopped");
            }
            wait_until("the program", || rig.state()["status"] == "running");
            deletes_all(rig);
        });
        kill_at_moments(rig, create, &["delete", "--force", &rig.id], deletes_all);
        rig.with_sleeper(|rig| {
            kill_at_moments(
                rig,
                |_| {},
                &["exec", &rig.id, "true"],
                |rig| {
                    assert_eq!(rig.state()["status"], "running");
                    wait_until("the end of what was killed", || unborn(rig).is_empty());
                },
            );
            assert_eq!(rig.exec("echo still here"), "still here");
        });
        rig.spec["process"]["args"] = json!(["true"]);
        rig.write_spec();
        kill_at_moments(rig, |_| {}, &["run", &rig.id], deletes_all);
    });
}

/// config-linux.md, "PIDs": a fork bomb stays within its limit, and ends when it is deleted.
#[test]
fn a_fork_bomb_is_contained() {
    if !machine_has("/sys/fs/cgroup/pids/tasks") {
        return;
    }
    on_both(|rig| {
        let bomb = "trap '' TERM INT HUP; while :; do sh /bomb 2>/dev/null & done";
        fs::write(rig.root().join("bomb"), bomb).unwrap();
        // A shell ends when it can't fork, but for one that is interactive.
        let fuse = "sh /bomb 2>/dev/null &\n".repeat(10_000) + "exec sleep 1000\n";
        fs::write(rig.root().join("fuse"), fuse).unwrap();
        rig.spec["linux"]["resources"]["pids"] = json!({ "limit": 64 });
        for own_pids in [true, false] {
            if !own_pids {
                rig.namespace("pid", None);
            }
            rig.create(&["sh", "-c", "exec sh -i < /fuse > /dev/null 2>&1"]).success();
            rig.verb(&["start"]).success();
            let current = || rig.cgroup("pids", "pids.current").parse::<u32>().unwrap();
            wait_until("the bomb", || current() >= 60);
            for _ in 0..50 {
                assert!(current() <= 64);
            }
            rig.verb(&["delete", "--force"]).success();
            rig.assert_nothing_left();
        }
    });
}

/// config-linux.md, "Memory", and runc-events: whoever it is that is killed for want of memory, and
/// however soon all is over and deleted, it is told each time.
#[test]
fn each_want_of_memory_is_told() {
    if !machine_has("/sys/fs/cgroup/memory/tasks") {
        return;
    }
    const GREEDY: &str = "dd if=/dev/zero of=/dev/null bs=48M count=1 2>/dev/null";
    on_ours("it tells of a killed process now and then", |rig| {
        rig.spec["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
        let log = rig.bundle().join("events");
        let told = |kind: &str| {
            let text = fs::read_to_string(&log).unwrap_or_default();
            text.lines().filter(|line| line.contains(&format!("\"type\":\"{kind}\""))).count()
        };
        for _ in 0..rounds("OOMS", 5) {
            for line in [format!("exec {GREEDY}"), format!("{GREEDY}; exec sleep 1000")] {
                let _ = fs::remove_file(&log);
                rig.create(&["sh", "-c", &line]).success();
                let watch = ["events", "--interval", "1000s", &rig.id];
                let mut watcher = Running::start(rig.command().args(watch), &log);
                wait_until("the watcher", || told("stats") > 0);
                rig.verb(&["start"]).success();
                if line.starts_with("exec") {
                    rig.wait_for_end();
                    rig.verb(&["delete"]).success();
                }
                wait_until("the event", || told("oom") == 1);
                rig.verb(&["delete", "--force"]).success();
                wait_until("the watcher's end", || watcher.has_ended());
                assert_eq!(told("oom"), 1);
            }
        }
    });
}

/// runtime.md, "Kill" and "Delete": containers that are hard to stop.
#[test]
fn stubborn_containers_end() {
    on_both(|rig| {
        let deaf = "trap '' TERM INT HUP; : > /ready; while :; do sleep 0.05; done";
        let forks = "setsid sh -c 'trap \"\" TERM; sh -c \"sleep 1000 & sleep 1000\" & sleep 1000' & \
                     : > /ready; sleep 1000";
        for (line, paused, own_pids) in [
            (deaf, false, true),
            (deaf, true, true),
            (forks, false, true),
            (forks, false, false),
            (forks, true, false),
        ] {
            if !own_pids {
                rig.namespace("pid", None);
            }
            let ready = rig.root().join("ready");
            let _ = fs::remove_file(&ready);
            rig.create(&["sh", "-c", line]).success();
            rig.verb(&["start"]).success();
            wait_until("it to be ready", || ready.exists());
            if line == deaf {
                rig.call(&["kill", &rig.id, "TERM"]).success();
                assert_eq!(rig.state()["status"], "running");
            }
            if paused {
                rig.verb(&["pause"]).success();
            }
            rig.call(&["kill", &rig.id, "KILL"]).success();
            rig.wait_for_end();
            rig.verb(&["delete"]).success();
            rig.assert_nothing_left();
        }
    });
}

/// A filesystem in user space whose server says hello and then nothing any more.
struct Hung {
    server: Option<fs::File>,
    path: std::path::PathBuf,
}

impl Hung {
    fn mount(path: std::path::PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        let mut server = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let line = "exec 3<&0; exec mount -i -t fuse \
                    -o fd=3,rootmode=40000,user_id=0,group_id=0,allow_other none \"$0\"";
        let input = Stdio::from(server.try_clone().unwrap());
        let mount = Command::new("sh").args(["-c", line]).arg(&path).stdin(input).output().unwrap();
        assert!(mount.status.success(), "{mount:?}");
        let mut request = [0; 8192];
        let length = server.read(&mut request).unwrap();
        assert!(length >= 40, "no hello");
        // FUSE_INIT of the kernel's fuse.h: an answer of 16 bytes with the request's number, and
        // version 7.31 with nothing optional.
        let mut answer = vec![0_u8; 16 + 64];
        answer[..4].copy_from_slice(&80_u32.to_ne_bytes());
        answer[8..16].copy_from_slice(&request[8..16]);
        answer[16..20].copy_from_slice(&7_u32.to_ne_bytes());
        answer[20..24].copy_from_slice(&31_u32.to_ne_bytes());
        server.write_all(&answer).unwrap();
        Self { server: Some(server), path }
    }

    /// Takes one request, which is never answered.
    fn swallow(&mut self) {
        let mut request = [0; 8192];
        assert!(self.server.as_mut().unwrap().read(&mut request).unwrap() > 0);
    }

    /// Every request fails now.
    fn abort(&mut self) {
        self.server = None;
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.abort();
        Command::new("umount").arg("-l").arg(&self.path).status().unwrap();
    }
}

/// runtime.md, "Delete": a process that can't be killed, as in a filesystem whose server hangs, is
/// named; the container is there until it is gone.
#[test]
fn a_process_that_can_not_be_killed_is_named() {
    if !machine_has("/dev/fuse") {
        return;
    }
    on_ours("it waits ten seconds and gives up the container", |rig| {
        // In a directory, so that nobody but the container looks at it.
        let mut hung = Hung::mount(rig.bundle().join("above/hung"));
        rig.bind(&rig.bundle().join("above"), "/above", &["rbind"]);
        rig.create(&["sh", "-c", "exec cat /above/hung/file"]).success();
        rig.verb(&["start"]).success();
        hung.swallow();
        let pid = rig.state()["pid"].to_string();
        rig.call(&["kill", &rig.id, "KILL"]).success();
        assert_eq!(rig.state()["status"], "running");
        let refused = rig.verb(&["delete", "--force"]).exited(1);
        refused.complains(&format!("[{pid}]"));
        assert_eq!(rig.state()["pid"].to_string(), pid);
        hung.abort();
        rig.wait_for_end();
        rig.verb(&["delete", "--force"]).success();
    });
}
