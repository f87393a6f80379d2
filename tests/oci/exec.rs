//! runc's manual: `exec`.

use std::fs;
use std::path::Path;

use berth_tests::{Running, wait_until};
use serde_json::json;

use crate::rig::on_both;

/// A process joins the container's namespaces and control group, and its status is `exec`'s.
#[test]
fn a_process_joins() {
    on_both(|rig| {
        rig.with_sleeper(|rig| {
            let links = "for n in pid mnt net uts ipc cgroup; do readlink /proc/$0/ns/$n; done";
            let call = |pid: &str| rig.call(&["exec", &rig.id, "sh", "-c", links, pid]).success();
            assert_eq!(call("self").stdout, call("1").stdout);
            rig.call(&["exec", &rig.id, "sh", "-c", "exit 7"]).exited(7);
            if Path::new("/sys/fs/cgroup/memory/tasks").exists() {
                assert_eq!(rig.exec("grep :memory: /proc/self/cgroup | cut -d: -f3"), "/");
            }
        });
    });
}

/// `--cgroup` names a control group below the container's, which must be there.
#[test]
fn a_process_goes_into_a_control_group_below() {
    if !Path::new("/sys/fs/cgroup/memory/tasks").exists() {
        eprintln!("skipped: there is no v1 hierarchy for memory");
        return;
    }
    on_both(|rig| {
        rig.with_sleeper(|rig| {
            let inner = Path::new("/sys/fs/cgroup/memory").join(&rig.id).join("inner");
            let call = |group: &str| {
                let line = "grep :memory: /proc/self/cgroup | cut -d: -f3";
                rig.call(&["exec", "--cgroup", group, &rig.id, "sh", "-c", line])
            };
            assert_ne!(call("memory:inner").code, 0);
            fs::create_dir(&inner).unwrap();
            assert_eq!(call("memory:inner").success().line(), "/inner");
            assert_eq!(call("memory:/").success().line(), "/");
            for bad in ["nothing:inner", "memory:../.."] {
                assert_ne!(call(bad).code, 0, "{bad}");
            }
            fs::remove_dir(&inner).unwrap();
        });
    });
}

/// What the flags say goes over what the container's process has.
#[test]
fn flags_say_what_is_different() {
    on_both(|rig| {
        rig.spec["process"]["env"] = json!(["PATH=/bin", "A=first"]);
        rig.with_sleeper(|rig| {
            let output = rig.call(&[
                "exec",
                "--cwd",
                "/tmp",
                "-e",
                "B=2",
                "-e",
                "C=3",
                "-u",
                "1000:1001",
                "-g",
                "5",
                &rig.id,
                "sh",
                "-c",
                "pwd; echo $A$B$C; id -u; id -g; id -G",
            ]);
            let output = output.success();
            let lines: Vec<&str> = output.stdout.lines().collect();
            assert_eq!(lines[..4], ["/tmp", "first23", "1000", "1001"]);
            assert!(lines[4].split(' ').any(|group| group == "5"), "{lines:?}");
        });
    });
}

/// `--process` takes the whole process from a file; `--detach` and `--pid-file` are for clients.
#[test]
fn a_process_is_described_by_a_file() {
    on_both(|rig| {
        rig.with_sleeper(|rig| {
            let process = json!({
                "args": ["sh", "-c", "echo $X > /out; exec sleep 1000"], "cwd": "/",
                "env": ["PATH=/bin", "X=from the file"], "user": { "uid": 0, "gid": 0 },
                "capabilities": rig.spec["process"]["capabilities"],
            });
            let (file, pid) = (rig.bundle().join("process.json"), rig.bundle().join("pid"));
            fs::write(&file, process.to_string()).unwrap();
            let (file, pid_file) = (file.to_str().unwrap(), pid.to_str().unwrap());
            rig.verb(&["exec", "--detach", "--process", file, "--pid-file", pid_file]).success();
            let pid = fs::read_to_string(&pid).unwrap();
            berth_tests::wait_until("its output", || {
                fs::read_to_string(rig.root().join("out")).is_ok_and(|text| !text.is_empty())
            });
            assert_eq!(fs::read_to_string(rig.root().join("out")).unwrap(), "from the file\n");
            let pids = rig.verb(&["ps", "-f", "json"]).success().stdout;
            assert!(pids.contains(&pid), "{pids}");
        });
    });
}

/// What can't be run, and where, is told.
#[test]
fn failures_are_told() {
    on_both(|rig| {
        rig.call(&["exec", &rig.id, "true"]).complains("does not exist");
        rig.with_sleeper(|rig| {
            let missing = rig.call(&["exec", &rig.id, "nothing-like-it"]);
            assert_ne!(missing.code, 0);
            missing.complains("executable file not found in $PATH");
        });
        rig.create(&["true"]).success();
        rig.verb(&["start"]).success();
        rig.wait_for_end();
        let late = rig.call(&["exec", &rig.id, "true"]);
        assert_ne!(late.code, 0);
        late.complains("cannot exec in a stopped container");
        rig.verb(&["delete"]).success();
    });
}

/// In a paused container nothing is run, unless it may wait for the container to be resumed.
#[test]
fn a_paused_container_is_refused_or_waited_for() {
    on_both(|rig| {
        rig.with_sleeper(|rig| {
            rig.verb(&["pause"]).success();
            rig.call(&["exec", &rig.id, "true"]).complains("paused");
            let mut command = rig.command();
            command.args(["exec", "--ignore-paused", &rig.id, "sh", "-c", "echo on"]);
            let log = rig.bundle().join("exec.log");
            let mut exec = Running::start(&mut command, &log);
            let inside = Path::new("/sys/fs/cgroup/freezer").join(&rig.id).join("cgroup.procs");
            if inside.exists() {
                wait_until("the process to be in the container", || {
                    fs::read_to_string(&inside).unwrap().lines().count() > 1
                });
            }
            assert!(!exec.has_ended());
            rig.verb(&["resume"]).success();
            wait_until("its end", || exec.has_ended());
            assert_eq!(fs::read_to_string(&log).unwrap(), "on\n");
        });
    });
}
