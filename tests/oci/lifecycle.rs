//! runtime.md: states, operations and what they print.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::rig::{Runtime, on_both};

/// runtime.md, "State": the properties of a container, and "Lifecycle": its way from `creating`
/// through `created` and `running` to `stopped`.
#[test]
fn a_container_goes_from_created_to_stopped() {
    on_both(|rig| {
        rig.spec["annotations"] = json!({ "org.example.key": "value" });
        rig.create(&["sh", "-c", "echo ran > /ran"]).success();
        let state = rig.state();
        assert_eq!(state["status"], "created");
        assert_eq!(state["id"], json!(rig.id));
        assert_eq!(
            state["ociVersion"].as_str().map(|version| version.starts_with("1.")),
            Some(true)
        );
        assert_eq!(state["bundle"], json!(rig.bundle()));
        assert_eq!(state["rootfs"], json!(rig.root()));
        assert_eq!(state["annotations"]["org.example.key"], "value");
        let pid = state["pid"].as_i64().unwrap();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        assert!(!rig.root().join("ran").exists(), "the program ran before the start");
        rig.verb(&["start"]).success();
        rig.wait_for_end();
        assert_eq!(rig.state()["pid"].as_i64().unwrap_or(0), 0);
        assert_eq!(fs::read_to_string(rig.root().join("ran")).unwrap(), "ran\n");
        rig.verb(&["delete"]).success();
        rig.verb(&["state"]).exited(1).complains("does not exist");
    });
}

/// runtime.md, "Create": an error if the id is not unique.
#[test]
fn an_id_is_taken_once() {
    on_both(|rig| {
        rig.create(&["true"]).success();
        let pid = rig.state()["pid"].clone();
        rig.verb(&["create"]).exited(1).complains("exist");
        assert_eq!(rig.state()["pid"], pid, "the first one was touched");
        rig.verb(&["delete", "-f"]).success();
    });
}

/// runtime.md, "Create": changes to config.json after this operation do not have an effect.
#[test]
fn later_changes_of_the_spec_are_not_the_containers() {
    on_both(|rig| {
        rig.create(&["sh", "-c", "echo first > /out; sleep 1000"]).success();
        fs::write(rig.bundle().join("config.json"), "no spec at all").unwrap();
        rig.verb(&["start"]).success();
        berth_tests::wait_until("the program", || rig.root().join("out").exists());
        rig.verb(&["delete", "-f"]).success();
    });
}

/// runtime.md, "Start": an error for a container that is not `created`, without an effect on it.
#[test]
fn only_a_created_container_is_started() {
    on_both(|rig| {
        rig.verb(&["start"]).exited(1).complains("does not exist");
        rig.with_sleeper(|rig| {
            rig.verb(&["start"]).exited(1).complains("running container");
            assert_eq!(rig.state()["status"], "running");
        });
    });
}

/// runtime.md, "Kill": sends a signal to the container's process; an error for one that is neither
/// `created` nor `running`.
#[test]
fn signals_reach_the_process_while_it_is_there() {
    on_both(|rig| {
        rig.verb(&["kill"]).exited(1).complains("does not exist");
        let line = "trap 'echo usr1 > /got' USR1; trap 'exit 3' TERM; : > /ready; \
                    while :; do sleep 0.05; done";
        rig.create(&["sh", "-c", line]).success();
        rig.verb(&["start"]).success();
        berth_tests::wait_until("the traps", || rig.root().join("ready").exists());
        for name in ["SIGUSR1", "USR1", "10"] {
            rig.call(&["kill", &rig.id, name]).success();
            let got = rig.root().join("got");
            berth_tests::wait_until("the signal", || got.exists());
            fs::remove_file(got).unwrap();
        }
        assert_ne!(rig.call(&["kill", &rig.id, "SIGNOTHING"]).code, 0);
        rig.call(&["kill", &rig.id, "0"]).success();
        rig.verb(&["kill"]).success();
        rig.wait_for_end();
        rig.verb(&["kill"]).exited(1).complains("container not running");
        rig.verb(&["delete"]).success();
    });
}

/// runtime.md, "Kill": a created container can be killed too.
#[test]
fn a_created_container_is_killed() {
    on_both(|rig| {
        rig.create(&["true"]).success();
        rig.call(&["kill", &rig.id, "KILL"]).success();
        rig.wait_for_end();
        rig.verb(&["start"]).exited(1);
        rig.verb(&["delete"]).success();
    });
}

/// runtime.md, "Delete": an error for a container that is not `stopped`, without an effect on it.
#[test]
fn a_running_container_is_deleted_by_force_only() {
    on_both(|rig| {
        rig.verb(&["delete"]).exited(1).complains("does not exist");
        rig.verb(&["delete", "--force"]).success();
        rig.create(&["sleep", "1000"]).success();
        rig.verb(&["start"]).success();
        rig.verb(&["delete"]).exited(1).complains("is not stopped: running");
        assert_eq!(rig.state()["status"], "running");
        rig.verb(&["delete", "--force"]).success();
        rig.verb(&["state"]).exited(1);
    });
}

/// runc's manual: `run` ends with the status of the process, or 128 and the number of its signal.
#[test]
fn run_has_the_status_of_its_process() {
    on_both(|rig| {
        rig.run(&["sh", "-c", "exit 42"]).exited(42);
        rig.run(&["sh", "-c", "kill -9 $$"]).exited(0);
        rig.namespace("pid", None);
        rig.run(&["sh", "-c", "kill -9 $$"]).exited(137);
    });
}

/// runc's manual: `list` shows all containers, with `--quiet` by their ids.
#[test]
fn containers_are_listed() {
    on_both(|rig| {
        assert_eq!(rig.call(&["list", "-q"]).success().stdout, "");
        rig.with_sleeper(|rig| {
            assert_eq!(rig.call(&["list", "-q"]).success().line(), rig.id);
            let list = rig.call(&["list", "-f", "json"]).success().stdout;
            let list: Value = serde_json::from_str(&list).unwrap();
            assert_eq!(list[0]["id"], json!(rig.id));
            assert_eq!(list[0]["status"], "running");
            assert_eq!(list[0]["owner"], "root");
            let table = rig.call(&["list"]).success().stdout;
            assert!(table.starts_with("ID ") && table.contains("running"), "{table}");
        });
    });
}

/// runc's manual: `ps` lists the processes of a container.
#[test]
fn processes_are_listed() {
    on_both(|rig| {
        rig.with_sleeper(|rig| {
            let pids = rig.verb(&["ps", "-f", "json"]).success().stdout;
            let pids: Vec<i64> = serde_json::from_str(&pids).unwrap();
            assert_eq!(pids, [rig.state()["pid"].as_i64().unwrap()]);
            let table = rig.verb(&["ps"]).success().stdout;
            assert_eq!(table.lines().count(), 2, "{table}");
            assert!(table.lines().nth(1).unwrap().contains("sleep 1000"), "{table}");
        });
    });
}

/// runc's manual: `--pid-file` takes the id of the process.
#[test]
fn the_process_id_is_written() {
    on_both(|rig| {
        rig.spec["process"]["args"] = json!(["true"]);
        rig.write_spec();
        let file = rig.bundle().join("pid").to_str().unwrap().to_owned();
        rig.verb(&["create", "--pid-file", &file]).success();
        let pid: i64 = fs::read_to_string(file).unwrap().parse().unwrap();
        assert_eq!(rig.state()["pid"], pid);
        rig.verb(&["delete", "-f"]).success();
    });
}

/// runc's manual: `pause` and `resume`.
#[test]
fn a_paused_container_stands_still() {
    on_both(|rig| {
        rig.verb(&["pause"]).exited(1).complains("does not exist");
        rig.create(&["sh", "-c", "while :; do echo >> /beat; sleep 0.01; done"]).success();
        rig.verb(&["start"]).success();
        let length = |rig: &crate::rig::Rig| {
            fs::metadata(rig.root().join("beat")).map_or(0, |data| data.len())
        };
        berth_tests::wait_until("a beat", || length(rig) > 0);
        rig.verb(&["pause"]).success();
        assert_eq!(rig.state()["status"], "paused");
        let before = length(rig);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(length(rig), before);
        rig.verb(&["resume"]).success();
        assert_eq!(rig.state()["status"], "running");
        berth_tests::wait_until("a beat", || length(rig) > before);
        rig.verb(&["pause"]).success();
        rig.verb(&["delete", "-f"]).success();
    });
}

/// go-runc, which containerd's shim drives runtimes with, reads the last error from the log.
#[test]
fn errors_are_logged_as_clients_read_them() {
    on_both(|rig| {
        let log = rig.bundle().join("log.json");
        let mut command = rig.command();
        command.arg("--log").arg(&log).args(["--log-format", "json", "state", "nobody"]);
        berth_tests::Finished::leaving(&mut command).exited(1).complains("does not exist");
        let text = fs::read_to_string(log).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["level"], "error");
        assert!(last["msg"].as_str().unwrap().contains("does not exist"));
        assert!(last["time"].as_str().unwrap().starts_with("20"));
    });
}

/// Docker's daemon reads the version from these lines.
#[test]
fn versions_are_told() {
    on_both(|rig| {
        let text = rig.call(&["--version"]).success().stdout;
        let name = if rig.runtime == Runtime::Berth { "berth-oci" } else { "runc" };
        assert!(text.starts_with(&format!("{name} version ")), "{text}");
        assert!(text.lines().any(|line| line.starts_with("spec: 1.")), "{text}");
    });
}
