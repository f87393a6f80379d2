//! `hooks`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::rig::{Rig, Runtime, on_both, on_ours, skip};

const STATIONS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that runs `script` on the host.
fn script(rig: &Rig, name: &str, script: &str) -> PathBuf {
    let path = rig.bundle().join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// What hooks have noted, one line each.
fn notes(rig: &Rig) -> Vec<String> {
    let text = fs::read_to_string(rig.bundle().join("notes")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// runtime.md, "Lifecycle": the order of the hooks.
#[test]
fn hooks_run_in_their_order() {
    on_ours("1.1 runs poststart hooks at creation", |rig| {
        let notes_path = rig.bundle().join("notes");
        fs::write(&notes_path, "").unwrap();
        rig.bind(&notes_path, "/notes", &["bind"]);
        for station in STATIONS {
            // This one's path is looked up in the container.
            let inside = station == "startContainer";
            let notes = if inside { "/notes".into() } else { notes_path.clone() };
            let line = format!("echo {station} >> {}", notes.display());
            let (path, args) = match inside {
                true => ("/bin/sh".into(), json!(["sh", "-c", line])),
                false => (script(rig, station, &line), Value::Null),
            };
            rig.spec["hooks"][station] = json!([{ "path": path, "args": args }]);
        }
        rig.create(&["sh", "-c", "echo program >> /notes"]).success();
        assert_eq!(notes(rig), ["prestart", "createRuntime", "createContainer"]);
        rig.verb(&["start"]).success();
        rig.wait_for_end();
        let mut before = notes(rig);
        // These two are beside each other.
        before[4..].sort();
        assert_eq!(before[3..], ["startContainer", "poststart", "program"]);
        rig.verb(&["delete"]).success();
        assert_eq!(notes(rig)[6..], ["poststop"]);
    });
}

/// runtime.md, "State": the state of the container is passed to hooks over standard input.
#[test]
fn hooks_get_the_state() {
    on_both(|rig| {
        rig.spec["annotations"] = json!({ "key": "value" });
        for station in ["createRuntime", "createContainer", "poststart", "poststop"] {
            let file = rig.bundle().join(format!("{station}.json"));
            let hook = script(rig, station, &format!("cat > {}", file.display()));
            rig.spec["hooks"][station] = json!([{ "path": hook }]);
        }
        rig.sh("true");
        for (station, statuses) in [
            ("createRuntime", &["creating", "created"][..]),
            ("createContainer", &["creating", "created"]),
            // runc 1.1 runs these at creation.
            ("poststart", &["running", "created"]),
            ("poststop", &["stopped"]),
        ] {
            let text = fs::read(rig.bundle().join(format!("{station}.json"))).unwrap();
            let state: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(state["id"], json!(rig.id), "{station}");
            assert_eq!(state["bundle"], json!(rig.bundle()), "{station}");
            assert_eq!(state["annotations"]["key"], "value", "{station}");
            assert!(statuses.contains(&state["status"].as_str().unwrap()), "{station}: {state}");
            if station != "poststop" {
                assert!(state["pid"].as_i64().unwrap() > 0, "{station}: {state}");
            }
        }
    });
}

/// config.md, "POSIX-platform Hooks": `args` and `env` as for execv.
#[test]
fn hooks_get_arguments_and_environment() {
    on_both(|rig| {
        let file = rig.bundle().join("out");
        let hook = script(rig, "hook", &format!("echo \"$1|$A|$HOME\" > {}", file.display()));
        rig.spec["hooks"]["createRuntime"] =
            json!([{ "path": hook, "args": ["hook", "one"], "env": ["A=1"] }]);
        rig.sh("true");
        assert_eq!(fs::read_to_string(file).unwrap(), "one|1|\n");
    });
}

/// config.md, "POSIX-platform Hooks": where they run: createRuntime in the runtime's mountns,
/// createContainer in the container's, before its root is the root.
#[test]
fn hooks_run_in_their_namespaces() {
    on_both(|rig| {
        for (station, same) in [("createRuntime", true), ("createContainer", false)] {
            let file = rig.bundle().join(station);
            let hook = script(
                rig,
                &format!("{station}.sh"),
                &format!("readlink /proc/self/ns/mnt > {}", file.display()),
            );
            rig.spec["hooks"][station] = json!([{ "path": hook }]);
            rig.sh("true");
            let ours = fs::read_link("/proc/self/ns/mnt").unwrap();
            let theirs = fs::read_to_string(file).unwrap();
            assert_eq!(theirs.trim() == ours.to_str().unwrap(), same, "{station}");
        }
    });
}

/// runtime.md, "Lifecycle": if a hook before the start fails, the container is stopped and an
/// error is generated; after the end a failure is only logged.
#[test]
fn failures_of_hooks() {
    on_both(|rig| {
        let failing = script(rig, "failing", "echo it broke >&2; exit 3");
        for station in ["prestart", "createRuntime", "createContainer"] {
            rig.spec["hooks"] = json!({ station: [{ "path": failing }] });
            rig.create(&["true"]).exited(1);
            rig.assert_nothing_left();
        }
        rig.spec["hooks"] = json!({ "startContainer": [{ "path": "/bin/false" }] });
        rig.create(&["sh", "-c", "echo ran > /ran"]).success();
        let started = rig.verb(&["start"]);
        match rig.runtime {
            Runtime::Berth => drop(started.exited(1)),
            Runtime::Runc => skip("runc: 1.1 tells nobody that a startContainer hook failed"),
        }
        rig.wait_for_end();
        assert!(!rig.root().join("ran").exists());
        rig.verb(&["delete"]).success();
        rig.spec["hooks"] = json!({ "poststop": [{ "path": failing }] });
        assert_eq!(rig.sh("echo fine"), "fine");
    });
}

/// runtime.md, "Lifecycle": if a poststart hook fails, the container is stopped and an error is
/// generated.
#[test]
fn a_failing_poststart_hook_stops_the_container() {
    let prepare = |rig: &mut Rig| {
        let failing = script(rig, "failing", "echo it broke >&2; exit 3");
        let next = script(rig, "next", &format!(": > {}", rig.bundle().join("next-ran").display()));
        rig.spec["hooks"] = json!({ "poststart": [{ "path": failing }, { "path": next }] });
    };
    on_both(|rig| {
        prepare(rig);
        rig.run(&["sleep", "1000"]).exited(1).complains("it broke");
        assert!(!rig.bundle().join("next-ran").exists());
        rig.assert_nothing_left();
    });
    on_ours("1.1 runs poststart hooks at creation", |rig| {
        prepare(rig);
        for own_pids in [true, false] {
            if !own_pids {
                rig.namespace("pid", None);
            }
            rig.create(&["sh", "-c", "sleep 1000 & sleep 1000"]).success();
            rig.verb(&["start"]).exited(1).complains("it broke");
            rig.wait_for_end();
            rig.verb(&["delete"]).success();
            rig.assert_nothing_left();
        }
    });
}

/// config.md, "POSIX-platform Hooks": `timeout` is the number of seconds before aborting the hook.
#[test]
fn slow_hooks_are_ended() {
    on_both(|rig| {
        let slow = script(rig, "slow", "exec sleep 1000");
        rig.spec["hooks"]["createRuntime"] = json!([{ "path": slow, "timeout": 1 }]);
        rig.create(&["true"]).exited(1);
    });
}
