//! The flags of the command line, by the pages of runc's manual (see `command.rs`).

use std::fs;
use std::os::fd::AsRawFd;
use std::process::Command;

use berth_tests::{Finished, Running, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::rig::{Rig, Runtime, on_both, on_ours};

/// runc-create: a `--pid-file` or `--console-socket` that can't be served fails, and nothing is
/// left.
#[test]
fn what_is_to_be_told_must_be_heard() {
    on_both(|rig| {
        rig.write_spec();
        rig.verb(&["create", "--pid-file", "/nowhere/pid"]).exited(1).complains("/nowhere");
        // The reference leaves the container then.
        rig.verb(&["delete", "-f"]).success();
        rig.spec["process"]["terminal"] = json!(true);
        rig.write_spec();
        for socket in ["/nowhere/socket", "/dev/null"] {
            assert_ne!(rig.verb(&["create", "--console-socket", socket]).code, 0, "{socket}");
            rig.assert_nothing_left();
        }
    });
    on_ours("it leaves the container", |rig| {
        rig.write_spec();
        rig.verb(&["create", "--pid-file", "/nowhere/pid"]).exited(1);
        rig.assert_nothing_left();
    });
}

/// runc-create, runc-exec: paths in flags are relative to the working directory, and a pid file
/// that is there is replaced.
#[test]
fn pid_files_are_written_where_they_are_named() {
    on_both(|rig| {
        fs::write(rig.bundle().join("pid"), "a text that is longer than a number").unwrap();
        rig.spec["process"]["args"] = json!(["sleep", "1000"]);
        rig.write_spec();
        rig.verb(&["create", "--pid-file", "pid"]).success();
        let written = |name: &str| fs::read_to_string(rig.bundle().join(name)).unwrap();
        assert_eq!(written("pid"), rig.state()["pid"].to_string());
        let exec = ["exec", "-d", "--pid-file", "exec-pid", &rig.id, "sleep", "1000"];
        rig.call(&exec).success();
        let pids: Vec<i64> =
            serde_json::from_str(&rig.verb(&["ps", "-f", "json"]).success().stdout).unwrap();
        assert!(pids.contains(&written("exec-pid").parse().unwrap()), "{pids:?}");
        rig.verb(&["delete", "-f"]).success();
    });
}

/// Runs a command of the runtime with descriptors 3 and 4 open on `file`, and what is in `line`
/// before.
fn with_descriptors(rig: &Rig, file: &fs::File, line: &str, args: &[&str]) -> Finished {
    let runtime = rig.command();
    let mut command = Command::new("sh");
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    command.arg("-c").arg(format!("exec 3>>{path} 4>&3; {line} exec \"$@\"")).arg("sh");
    command.arg(runtime.get_program()).args(runtime.get_args()).args(args);
    Finished::leaving(command.current_dir(rig.bundle()))
}

/// runc-run, runc-exec: `--preserve-fds` leaves as many descriptors from 3 on to the process, and
/// none else goes along; that many must be open.
#[test]
fn descriptors_are_preserved() {
    on_both(|rig| {
        let file = tempfile::NamedTempFile::new_in(rig.bundle()).unwrap();
        let line = "ls /proc/self/fd | wc -l; echo from $0 >&3; test -e /proc/self/fd/4";
        let written = || fs::read_to_string(file.path()).unwrap();
        rig.spec["process"]["args"] = json!(["sh", "-c", line, "run"]);
        rig.write_spec();
        let id = rig.id.clone();
        let call = |rig: &Rig, args: &[&str]| with_descriptors(rig, file.as_file(), "", args);
        // Three of its own, and that of the directory that is listed.
        assert_eq!(call(rig, &["run", "--preserve-fds", "1", &id]).exited(1).line(), "5");
        assert_eq!(call(rig, &["run", "--preserve-fds=2", &id]).success().line(), "6");
        assert_eq!(written(), "from run\nfrom run\n");
        assert_eq!(call(rig, &["run", &id]).exited(1).line(), "4");
        assert_ne!(call(rig, &["run", "--preserve-fds", "30", &id]).code, 0);
        rig.with_sleeper(|rig| {
            let args = ["exec", "--preserve-fds", "2", &id, "sh", "-c", line, "exec"];
            assert_eq!(call(rig, &args).success().line(), "6");
            assert!(written().ends_with("from exec\n"), "{}", written());
        });
    });
}

/// `sd_listen_fds(3)`: sockets of a service manager's go on to the container's process, before
/// those of `--preserve-fds`.
#[test]
fn sockets_of_a_service_manager_go_along() {
    on_both(|rig| {
        let file = tempfile::NamedTempFile::new_in(rig.bundle()).unwrap();
        let line = "ls /proc/self/fd | wc -l; echo $LISTEN_FDS $LISTEN_PID";
        rig.spec["process"]["args"] = json!(["sh", "-c", line]);
        rig.write_spec();
        let id = rig.id.clone();
        let call = |rig: &Rig, line: &str, args: &[&str]| {
            with_descriptors(rig, file.as_file(), line, args).success().stdout
        };
        let ours = "LISTEN_PID=$$ LISTEN_FDS=1";
        assert_eq!(call(rig, ours, &["run", &id]), "5\n1 1\n");
        assert_eq!(call(rig, ours, &["run", "--preserve-fds", "1", &id]), "6\n1 1\n");
        // Those are somebody else's.
        assert_eq!(call(rig, "LISTEN_PID=1 LISTEN_FDS=1", &["run", &id]), "4\n\n");
    });
}

/// runc-run: `--no-pivot` is for roots that can't be pivoted from, `--no-new-keyring` shares the
/// caller's session keyring.
#[test]
fn roots_and_keyrings_are_shared_when_asked() {
    on_both(|rig| {
        rig.spec["process"]["args"] = json!(["sh", "-c", "cat /proc/keys; ls /"]);
        rig.write_spec();
        let own = rig.verb(&["run"]).success().stdout;
        let other = format!("{}-other", rig.id);
        let shared = rig.call(&["run", "--no-new-keyring", &other]).success().stdout;
        let moved = rig.verb(&["run", "--no-pivot"]).success().stdout;
        assert!(own.contains(&rig.id), "no keyring of its own: {own}");
        assert!(!shared.contains(&other), "a keyring of its own: {shared}");
        let entries = |text: &str| text.lines().filter(|line| !line.contains(' ')).count();
        assert_eq!(entries(&moved), fs::read_dir(rig.root()).unwrap().count(), "{moved}");
    });
}

/// runc-kill: `--all` reaches every process, also when the first one has ended and others haven't.
#[test]
fn all_processes_are_killed() {
    on_both(|rig| {
        rig.namespace("pid", None);
        rig.create(&["sh", "-c", "sleep 1000 & sleep 1000 & : > /ready"]).success();
        rig.verb(&["start"]).success();
        wait_until("the processes", || rig.root().join("ready").exists());
        rig.wait_for_end();
        let pids = || {
            let text = rig.verb(&["ps", "-f", "json"]).success().stdout;
            serde_json::from_str::<Option<Vec<i64>>>(&text).unwrap().unwrap_or_default()
        };
        assert_eq!(pids().len(), 2);
        rig.verb(&["kill"]).exited(1).complains("not running");
        rig.call(&["kill", "--all", &rig.id, "SIGKILL"]).success();
        wait_until("their end", || pids().is_empty());
        rig.call(&["kill", "-a", &rig.id, "9"]).success();
        rig.verb(&["delete"]).success();
    });
}

/// runc-delete: `--force` is for a container at any stage, and for none.
#[test]
fn force_deletes_at_any_stage() {
    on_both(|rig| {
        rig.verb(&["delete", "--force"]).success();
        for steps in [&["create"][..], &["create", "start"], &["create", "start", "pause"]] {
            rig.spec["process"]["args"] = json!(["sleep", "1000"]);
            rig.write_spec();
            steps.iter().for_each(|verb| drop(rig.verb(&[verb]).success()));
            assert_eq!(rig.verb(&["delete"]).code != 0, steps.len() > 1, "{steps:?}");
            rig.verb(&["delete", "--force"]).success();
            rig.assert_nothing_left();
            rig.verb(&["state"]).exited(1).complains("does not exist");
        }
        rig.create(&["true"]).success();
        rig.verb(&["start"]).success();
        rig.wait_for_end();
        rig.verb(&["delete", "-f"]).success();
    });
}

/// runc-exec: its flags, beyond those of `exec.rs`.
#[test]
fn a_process_has_what_the_flags_say() {
    on_both(|rig| {
        rig.with_sleeper(|rig| {
            let status = |flags: &[&str]| {
                let command = [&rig.id, "grep", "-E", "NoNewPrivs|CapEff", "/proc/self/status"];
                let text = rig.call(&[&["exec"], flags, &command].concat()).success().stdout;
                let value = |line: &str| line.split_whitespace().nth(1).unwrap().to_owned();
                let (effective, privileges) = text.split_once('\n').unwrap();
                (u64::from_str_radix(&value(effective), 16).unwrap(), value(privileges))
            };
            let plain = status(&[]);
            assert_eq!(plain.1, "0");
            assert_eq!(status(&["--no-new-privs"]), (plain.0, "1".to_owned()));
            let (effective, _) = status(&["--cap", "CAP_SYS_ADMIN", "--cap", "CAP_SYS_TIME"]);
            assert_eq!(effective, plain.0 | 1 << 21 | 1 << 25);
            for bad in [&["--user", "nobody"][..], &["--cwd", "/nowhere"], &["--env", "novalue"]] {
                let call = [&["exec"], bad, &[&rig.id, "true"]].concat();
                rig.call(&call).exited(255).complains("exec failed: ");
            }
            rig.verb(&["exec"]).exited(255);
            rig.verb(&["exec", "--process", "/nowhere"]).exited(255).complains("/nowhere");
            rig.call(&["exec", &rig.id, "sh", "-c", "kill -9 $$"]).exited(137);
            // What follows the command is the command's.
            let flags = rig.call(&["exec", &rig.id, "echo", "-t", "--detach", "-u", "5"]);
            assert_eq!(flags.success().line(), "-t --detach -u 5");
        });
    });
}

/// runc-exec: a container that is created and not started can be joined, one that is paused can't.
#[test]
fn processes_join_before_the_start_and_not_in_a_pause() {
    on_both(|rig| {
        rig.create(&["true"]).success();
        assert_eq!(rig.exec("echo joined"), "joined");
        assert_eq!(rig.state()["status"], "created");
        rig.verb(&["pause"]).success();
        assert_eq!(rig.state()["status"], "paused");
        rig.call(&["exec", &rig.id, "true"]).exited(255).complains("paused");
        rig.verb(&["start"]).exited(1).complains("paused state");
        rig.verb(&["resume"]).success();
        assert_eq!(rig.state()["status"], "created");
        rig.verb(&["delete", "-f"]).success();
    });
}

/// runc-run: `--detach` leaves the container to itself, `--keep` leaves it to be deleted.
#[test]
fn run_leaves_what_it_is_told_to() {
    on_both(|rig| {
        rig.spec["process"]["args"] = json!(["sleep", "1000"]);
        rig.write_spec();
        rig.verb(&["run", "--detach", "--pid-file", "pid"]).success();
        let state = rig.state();
        assert_eq!(state["status"], "running");
        assert_eq!(fs::read_to_string(rig.bundle().join("pid")).unwrap(), state["pid"].to_string());
        rig.verb(&["run"]).exited(1).complains("exist");
        assert_eq!(rig.state()["pid"], state["pid"], "the first one was touched");
        rig.verb(&["delete", "-f"]).success();
        rig.spec["process"]["args"] = json!(["sh", "-c", "exit 4"]);
        rig.write_spec();
        rig.verb(&["run", "--no-subreaper"]).exited(4);
        rig.assert_nothing_left();
        // `--keep` came with 1.1.
        rig.verb(&["run", "--keep"]).exited(4);
        assert_eq!(rig.state()["status"], "stopped");
        rig.verb(&["delete"]).success();
        rig.spec["process"]["args"] = json!(["nothing-like-it"]);
        rig.write_spec();
        rig.verb(&["run", "--detach"]).exited(1);
        rig.assert_nothing_left();
    });
}

/// runc-run, runc-exec: signals for the waiting command are the process's.
#[test]
fn signals_are_passed_on() {
    on_both(|rig| {
        let line = "trap 'exit 5' TERM; trap 'echo hup' HUP; echo ready; \
                    while :; do sleep 0.02; done";
        rig.spec["process"]["args"] = json!(["sh", "-c", line]);
        rig.write_spec();
        let log = rig.bundle().join("log");
        let shown = |text: &str| {
            wait_until(text, || fs::read_to_string(&log).unwrap().contains(text));
        };
        let mut run = Running::start(rig.command().arg("run").arg(&rig.id), &log);
        shown("ready");
        let pid = nix::unistd::Pid::from_raw(run.pid() as i32);
        nix::sys::signal::kill(pid, Signal::SIGHUP).unwrap();
        shown("hup");
        assert_eq!(run.stop(Signal::SIGTERM), 5);
        rig.assert_nothing_left();
        rig.with_sleeper(|rig| {
            let log = rig.bundle().join("exec-log");
            let args = ["exec", &rig.id, "sh", "-c", line];
            let mut exec = Running::start(rig.command().args(args), &log);
            wait_until("the trap", || fs::read_to_string(&log).unwrap().contains("ready"));
            assert_eq!(exec.stop(Signal::SIGTERM), 5);
        });
    });
}

/// What is no command line ends with an error and does nothing.
#[test]
fn nonsense_is_refused() {
    on_both(|rig| {
        rig.write_spec();
        for args in [
            &["nonsense"][..],
            &["--nonsense", "list"],
            &["state"],
            &["state", "a", "b"],
            &["create"],
            &["create", "--bundle"],
            &["kill"],
            &["exec"],
            &["update", "--memory", "much", "a"],
            &["delete"],
        ] {
            let refused = rig.call(args);
            assert_ne!(refused.code, 0, "{args:?}");
            assert_ne!(refused.stderr, "", "{args:?}");
        }
        if rig.runtime == Runtime::Berth {
            rig.call(&["--rootless", "true", "list"]).exited(1).complains("--rootless");
            assert_ne!(rig.call(&["run", "--preserve-fds", "-1", "a"]).code, 0);
        }
    });
}
