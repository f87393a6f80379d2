//! The command line as clients depend on it: go-runc (containerd's shim and Docker's daemon), conmon
//! (podman) and those who read what it prints. runtime.md leaves it open; the reference is runc's
//! manual, <https://github.com/opencontainers/runc/tree/v1.1.5/man>, by the names of its pages.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use berth_tests::{Finished, Running, wait_until};
use serde_json::{Value, json};

use crate::rig::{Rig, machine_has, on_both, on_ours};

fn keys(document: &Value) -> BTreeSet<&str> {
    document.as_object().unwrap().keys().map(String::as_str).collect()
}

fn is_a_time(value: &Value) -> bool {
    let text = value.as_str().unwrap();
    text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z')
}

/// runc-state: what go-runc's `Container` is read from, all of it and at each stage.
#[test]
fn states_have_the_fields_that_clients_read() {
    on_both(|rig| {
        let fields =
            ["bundle", "created", "id", "ociVersion", "owner", "pid", "rootfs", "status"].into();
        rig.create(&["sleep", "1000"]).success();
        let created = rig.state();
        assert_eq!(keys(&created), fields);
        assert!(is_a_time(&created["created"]), "{created}");
        rig.verb(&["start"]).success();
        let running = rig.state();
        assert_eq!((&running["pid"], &running["created"]), (&created["pid"], &created["created"]));
        rig.call(&["kill", &rig.id, "KILL"]).success();
        rig.wait_for_end();
        let stopped = rig.state();
        assert_eq!(keys(&stopped), fields);
        assert_eq!((&stopped["pid"], &stopped["status"]), (&json!(0), &json!("stopped")));
        rig.verb(&["delete"]).success();
    });
}

/// runc-list: go-runc reads the array, people the table.
#[test]
fn lists_have_the_columns_that_clients_read() {
    on_both(|rig| {
        let table = |rig: &Rig| rig.call(&["list"]).success().stdout;
        let words = |line: &str| Vec::from_iter(line.split_whitespace().map(str::to_owned));
        let title = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
        assert_eq!(words(table(rig).trim_end()), title);
        let none: Option<Vec<Value>> =
            serde_json::from_str(&rig.call(&["list", "--format=json"]).success().stdout).unwrap();
        assert!(none.unwrap_or_default().is_empty());
        rig.with_sleeper(|rig| {
            let table = table(rig);
            let row = words(table.lines().nth(1).unwrap());
            let state = rig.state();
            assert_eq!(row[0], rig.id);
            assert_eq!(row[1], state["pid"].to_string());
            assert_eq!(row[3], rig.bundle().to_str().unwrap());
            assert_eq!(row[5], "root");
            let list = rig.call(&["list", "--format", "json"]).success().stdout;
            let list: Value = serde_json::from_str(&list).unwrap();
            let mut only = list[0].clone();
            only["owner"] = state["owner"].clone();
            assert_eq!(only, state);
        });
        assert_ne!(rig.call(&["list", "--format", "yaml"]).code, 0);
    });
}

/// runc-ps: numbers as JSON, or what `ps` prints with the options that are given, and nothing of a
/// container that has ended.
#[test]
fn processes_are_listed_as_ps_is_asked() {
    on_both(|rig| {
        rig.with_sleeper(|rig| {
            let table = rig.call(&["ps", &rig.id, "-o", "pid,args"]).success().stdout;
            let rows: Vec<&str> = table.lines().map(str::trim).collect();
            assert_eq!(rows[0], "PID COMMAND");
            assert_eq!(rows[1..], [format!("{} sleep 1000", rig.state()["pid"])]);
            assert_ne!(rig.call(&["ps", &rig.id, "-o", "args"]).code, 0, "there is no PID");
            rig.call(&["kill", &rig.id, "KILL"]).success();
            rig.wait_for_end();
            let none = rig.verb(&["ps", "--format", "json"]).success().stdout;
            let none: Option<Vec<i64>> = serde_json::from_str(&none).unwrap();
            assert!(none.unwrap_or_default().is_empty());
        });
        rig.verb(&["ps"]).exited(1).complains("does not exist");
    });
}

/// runc-events: what go-runc's `Stats` is read from.
#[test]
fn figures_have_the_fields_that_clients_read() {
    on_both(|rig| {
        rig.spec["linux"]["resources"]["pids"] = json!({ "limit": 50 });
        rig.with_sleeper(|rig| {
            let text = rig.verb(&["events", "--stats"]).success().stdout;
            let event: Value = serde_json::from_str(&text).unwrap();
            let data = &event["data"];
            for path in [
                "/cpu/usage/total",
                "/cpu/usage/kernel",
                "/cpu/usage/user",
                "/cpu/usage/percpu/0",
                "/memory/usage/limit",
                "/memory/usage/usage",
                "/memory/usage/max",
                "/memory/usage/failcnt",
                "/memory/swap/limit",
                "/memory/kernel/usage",
                "/memory/kernelTCP/failcnt",
                "/memory/raw/cache",
                "/pids/current",
                "/pids/limit",
            ] {
                assert!(data.pointer(path).is_some_and(Value::is_u64), "{path} in {data}");
            }
            assert!(data["cpu"]["throttling"].is_object() && data["blkio"].is_object(), "{data}");
            assert_eq!((&data["pids"]["current"], &data["pids"]["limit"]), (&json!(1), &json!(50)));
        });
        rig.verb(&["events", "--stats"]).exited(1).complains("does not exist");
    });
}

/// The events of the container so far, by their types.
fn events(log: &std::path::Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
            event["type"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn watch(rig: &Rig, interval: &str) -> (Running, std::path::PathBuf) {
    let log = rig.bundle().join("events");
    let _ = fs::remove_file(&log);
    let mut command = rig.command();
    command.args(["events", "--interval", interval, &rig.id]);
    (Running::start(&mut command, &log), log)
}

/// runc-events: figures again and again, until the container has ended.
#[test]
fn figures_come_at_an_interval() {
    on_both(|rig| {
        rig.create(&["sleep", "1000"]).success();
        rig.verb(&["start"]).success();
        let (mut watcher, log) = watch(rig, "1s");
        wait_until("figures", || events(&log).iter().filter(|kind| *kind == "stats").count() > 1);
        rig.call(&["kill", &rig.id, "KILL"]).success();
        // The reference notices when the control group goes.
        rig.wait_for_end();
        rig.verb(&["delete"]).success();
        wait_until("the watcher's end", || watcher.has_ended());
        assert_ne!(rig.verb(&["events", "--interval", "0s"]).code, 0);
    });
}

/// runc-events: a process that is killed for want of memory is an event at once, be it the first
/// one or another.
#[test]
fn want_of_memory_is_an_event() {
    if !machine_has("/sys/fs/cgroup/memory/tasks") {
        return;
    }
    on_both(|rig| {
        rig.spec["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
        let greedy = ["dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=48"];
        rig.create(&["sleep", "1000"]).success();
        rig.verb(&["start"]).success();
        // So long that only the alarm can be what is heard.
        let (mut watcher, log) = watch(rig, "10000s");
        let kills = || events(&log).iter().filter(|kind| *kind == "oom").count();
        // The watcher has no other sign of being ready.
        wait_until("an event", || {
            rig.call(&[&["exec", &rig.id], &greedy[..]].concat()).exited(137);
            kills() > 0
        });
        rig.verb(&["delete", "-f"]).success();
        wait_until("the watcher's end", || watcher.has_ended());

        rig.create(&greedy).success();
        let (mut watcher, log) = watch(rig, "1s");
        wait_until("the watcher", || !events(&log).is_empty());
        rig.verb(&["start"]).success();
        rig.wait_for_end();
        wait_until("the event", || events(&log).contains(&"oom".to_owned()));
        rig.verb(&["delete"]).success();
        wait_until("the watcher's end", || watcher.has_ended());
    });
}

/// runc-update: a document from a file or standard input, and not for a container that has ended;
/// one that is paused is updated too. What is no document is refused, and changes nothing.
#[test]
fn limits_come_as_a_document() {
    if !machine_has("/sys/fs/cgroup/memory/tasks") {
        return;
    }
    on_both(|rig| {
        rig.spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
        rig.create(&["sleep", "1000"]).success();
        let file = rig.bundle().join("resources.json");
        let update = |rig: &Rig, document: &str| {
            fs::write(&file, document).unwrap();
            let mut command = rig.command();
            command.args(["update", "--resources", "-", &rig.id]);
            command.stdin(fs::File::open(&file).unwrap());
            command.output().unwrap()
        };
        let limit = |rig: &Rig| rig.cgroup("memory", "memory.limit_in_bytes");
        for (steps, megabytes) in [(&[][..], 40), (&["start"][..], 41), (&["pause"][..], 42)] {
            steps.iter().for_each(|verb| drop(rig.verb(&[verb]).success()));
            let document = json!({ "memory": { "limit": megabytes << 20 } }).to_string();
            assert!(update(rig, &document).status.success());
            assert_eq!(limit(rig), (megabytes << 20).to_string());
        }
        for document in ["", "{\"memory\":", "[]", "{\"memory\": {\"limit\": \"much\"}}"] {
            assert_eq!(update(rig, document).status.code(), Some(1), "{document}");
        }
        assert_eq!(limit(rig), (42 << 20).to_string());
        rig.verb(&["resume"]).success();
        rig.call(&["kill", &rig.id, "KILL"]).success();
        rig.wait_for_end();
        rig.verb(&["update", "--memory", "1000000"]).exited(1).complains("not running");
        rig.verb(&["delete"]).success();
    });
}

/// runc-features and features.md: what is there to be read before a container is.
#[test]
fn features_are_told() {
    on_both(|rig| {
        let text = rig.call(&["features"]).success().stdout;
        let features: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(features["ociVersionMin"], "1.0.0");
        assert!(features["ociVersionMax"].as_str().unwrap().starts_with("1."));
        let has = |path: &str, name: &str| {
            let list = features.pointer(path).and_then(Value::as_array);
            list.is_some_and(|list| list.iter().any(|item| item == name))
        };
        for (path, names) in [
            ("/hooks", &["prestart", "createRuntime", "startContainer", "poststop"][..]),
            ("/mountOptions", &["rbind", "ro", "rprivate", "nosuid"]),
            ("/linux/namespaces", &["pid", "network", "user", "mount", "uts", "ipc", "cgroup"]),
            ("/linux/capabilities", &["CAP_CHOWN", "CAP_BPF"]),
            ("/linux/seccomp/actions", &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"]),
            ("/linux/seccomp/operators", &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"]),
            ("/linux/seccomp/archs", &["SCMP_ARCH_X86_64"]),
        ] {
            for name in names {
                assert!(has(path, name), "{path} has no {name}: {features}");
            }
        }
        for flag in ["v1", "v2", "systemd"] {
            assert!(features["linux"]["cgroup"][flag].is_boolean(), "{features}");
        }
    });
}

/// features.md, "Mount Options": all that runc tells are told here too, and what is told is taken.
#[test]
fn options_of_mounts_are_told_and_taken() {
    let options = |features: &Finished| -> Vec<String> {
        let features: Value = serde_json::from_str(&features.stdout).unwrap();
        serde_json::from_value(features["mountOptions"].clone()).unwrap()
    };
    on_ours("it is what is compared with", |rig| {
        let ours = options(&rig.call(&["features"]).success());
        let theirs = options(&Finished::run("runc", &["features"], b"").success());
        let missing: Vec<_> = theirs.iter().filter(|option| !ours.contains(option)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let mounts = rig.spec["mounts"].clone();
        // Those two need maps.
        for option in ours.iter().filter(|option| !option.ends_with("idmap")) {
            rig.add_mount(json!({
                "destination": "/new", "type": "tmpfs", "source": "/tmp", "options": [option],
            }));
            let run = rig.run(&["grep", "-q", " /new ", "/proc/self/mountinfo"]);
            assert_eq!(run.code, 0, "{option}: {run:?}");
            rig.spec["mounts"] = mounts.clone();
        }
    });
}

/// runc: `--log` takes errors, as lines of `key=value` by default, and standard error has them too.
/// A log that can't be opened is an error of its own.
#[test]
fn errors_go_to_the_log() {
    on_both(|rig| {
        let log = rig.bundle().join("log");
        let call = |log: &str, format: &[&str]| {
            let mut command = rig.command();
            command.args(["--log", log]).args(format).args(["start", "nobody"]);
            Finished::leaving(&mut command).exited(1)
        };
        call(log.to_str().unwrap(), &[]).complains("does not exist");
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.contains("level=error msg=\"") && text.contains("does not exist"), "{text}");
        assert!(text.starts_with("time=\"20"), "{text}");
        call(log.to_str().unwrap(), &["--log-format", "json"]);
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(text.lines().count(), 2, "the log was not added to: {text}");
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(keys(&last), ["level", "msg", "time"].into());
        call("/nowhere/log", &[]).complains("/nowhere/log");
        assert_ne!(rig.call(&["--log-format", "morse", "list"]).code, 0);
    });
}

/// go-runc reads the last line of the log when `create` fails: one that names what was wrong, though
/// warnings came before.
#[test]
fn failures_of_create_are_in_the_log() {
    on_both(|rig| {
        rig.spec["process"]["args"] = json!(["nothing-like-it"]);
        rig.write_spec();
        let log = rig.bundle().join("log");
        let mut command = rig.command();
        command.arg("--log").arg(&log).args(["--log-format", "json", "create", &rig.id]);
        Finished::leaving(&mut command).exited(1);
        let text = fs::read_to_string(log).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["level"], "error");
        assert!(last["msg"].as_str().unwrap().contains("executable file not found in $PATH"));
    });
}

/// go-runc gives a command a pipe as its standard output, and its reader may be gone.
#[test]
fn a_reader_may_leave() {
    on_both(|rig| {
        rig.with_sleeper(|rig| {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut state = rig.command();
            state.args(["state", &rig.id]).stdout(writer).stderr(Stdio::null());
            state.status().unwrap();
            assert_eq!(rig.state()["status"], "running");
        });
    });
}
