//! Specs that can't be followed: each is refused by naming the field, and nothing is left.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::rig::{Rig, Runtime, on_both, on_ours};

/// Creates a container from the spec after `change`, which must fail. Ours names the `field`; the
/// reference has words of its own.
pub(crate) fn refused(rig: &mut Rig, field: &str, change: impl FnOnce(&mut Value)) {
    let whole = rig.spec.clone();
    rig.spec["process"]["args"] = json!(["true"]);
    change(&mut rig.spec);
    rig.write_spec();
    let before = tree(&rig.root());
    let refused = rig.verb(&["create"]);
    assert_ne!(refused.code, 0, "{field} {:?}", rig.runtime);
    if rig.runtime == Runtime::Berth {
        refused.exited(1).complains(field);
        assert_eq!(tree(&rig.root()), before, "{field}: something was made in the root");
    }
    rig.assert_nothing_left();
    assert_eq!(processes(rig), [0; 0], "{field}");
    rig.spec = whole;
}

/// All paths below `directory`.
pub(crate) fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(tree(&entry.path()));
        }
        all.push(entry.path());
    }
    all.sort();
    all
}

/// The processes of the runtime's that have the rig's bundle in their command line.
fn processes(rig: &Rig) -> Vec<i32> {
    let ours = rig.bundle().to_str().unwrap();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let line = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| line(pid).contains(ours)).collect()
}

/// Creates a container for each of `values` at `pointer` (RFC 6901) of its spec, which must fail
/// and name the field in ours.
pub(crate) fn each_refused(rig: &mut Rig, cases: &[(&str, Value)]) {
    for (pointer, value) in cases {
        let field = pointer.trim_start_matches('/').replace('/', ".");
        refused(rig, &field, |spec| set(spec, pointer, value.clone()));
    }
}

/// Sets what is at `pointer`, making objects on the way there.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let mut place = document;
    for name in pointer.split('/').skip(1) {
        if place.is_null() {
            *place = json!({});
        }
        place = &mut place[name];
    }
    *place = value;
}

/// A spec that is no JSON, or endless.
#[test]
fn no_spec() {
    on_both(|rig| {
        for text in ["", "no spec", "[]", "{}", "{\"process\": "] {
            fs::write(rig.bundle().join("config.json"), text).unwrap();
            rig.verb(&["create"]).exited(1);
            rig.assert_nothing_left();
        }
        fs::remove_file(rig.bundle().join("config.json")).unwrap();
        rig.verb(&["create"]).exited(1).complains("config.json");
        rig.verb(&["create", "--bundle", "/nowhere"]).exited(1);
    });
}

/// A spec of 50 MB.
#[test]
fn a_huge_spec() {
    on_ours("it reads whatever there is", |rig| {
        rig.spec["annotations"] = json!({ "a": "a".repeat(50 << 20) });
        rig.create(&["true"]).exited(1).complains("config.json");
    });
}

/// What must be there, and what isn't.
#[test]
fn missing_things() {
    on_both(|rig| {
        refused(rig, "root", |spec| drop(spec.as_object_mut().unwrap().remove("root")));
        refused(rig, "rootfs", |spec| spec["root"]["path"] = json!("/nowhere/rootfs"));
        refused(rig, "linux.namespaces", |spec| {
            let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|namespace| namespace["type"] != "network");
            list.push(json!({ "type": "network", "path": "/nowhere" }));
        });
    });
}

/// Numbers that are negative, too large, or none.
#[test]
fn impossible_numbers() {
    on_both(|rig| {
        for uid in [json!(-1), json!(4_294_967_296_u64), json!("0"), json!(1.5)] {
            refused(rig, "process.user.uid", |spec| spec["process"]["user"]["uid"] = uid);
        }
        refused(rig, "process.rlimits[0].hard", |spec| {
            let limit = json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": -1 });
            spec["process"]["rlimits"] = json!([limit]);
        });
        refused(rig, "linux.resources.memory.limit", |spec| {
            let limit = json!({ "limit": 18_446_744_073_709_551_615_u64 });
            spec["linux"]["resources"]["memory"] = limit;
        });
        refused(rig, "process.oomScoreAdj", |spec| spec["process"]["oomScoreAdj"] = json!(5000));
    });
}

/// Names that stand for nothing.
#[test]
fn unknown_names() {
    on_both(|rig| {
        refused(rig, "linux.seccomp", |spec| {
            spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_MAYBE" });
        });
        refused(rig, "process.rlimits", |spec| {
            let limit = json!({ "type": "RLIMIT_LUCK", "soft": 0, "hard": 0 });
            spec["process"]["rlimits"] = json!([limit]);
        });
        refused(rig, "linux.sysctl", |spec| {
            spec["linux"]["sysctl"] = json!({ "kernel.panic": "1" });
        });
        refused(rig, "linux.rootfsPropagation", |spec| {
            spec["linux"]["rootfsPropagation"] = json!("sideways");
        });
    });
}

/// Mounts out of the root, and over `/proc`.
#[test]
fn mounts_elsewhere() {
    on_both(|rig| {
        refused(rig, "/proc", |spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            let options = json!(["bind"]);
            mounts.push(json!({ "destination": "/proc/sys", "type": "bind", "source": "/tmp",
                "options": options }));
        });
    });
    on_ours("it takes such paths for others, in the root", |rig| {
        refused(rig, "mounts", |spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.push(json!({ "destination": "/../../etc", "type": "tmpfs", "source": "t" }));
        });
    });
}

/// Control groups elsewhere.
#[test]
fn control_groups_elsewhere() {
    on_ours("it takes such paths for others", |rig| {
        for path in ["/../x", "a/../../b", "system.slice:docker:x"] {
            refused(rig, "linux.cgroupsPath", |spec| spec["linux"]["cgroupsPath"] = json!(path));
        }
    });
}

/// Labels for security modules that the kernel hasn't.
#[test]
fn labels_without_their_modules() {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        return crate::rig::skip("both: this machine has SELinux");
    }
    on_ours("it passes over labels", |rig| {
        refused(rig, "process.selinuxLabel", |spec| {
            spec["process"]["selinuxLabel"] = json!("a:b:c:s0");
        });
        refused(rig, "linux.mountLabel", |spec| spec["linux"]["mountLabel"] = json!("a:b:c:s0"));
    });
    if std::path::Path::new("/sys/module/apparmor").exists() {
        return crate::rig::skip("both: this machine has AppArmor");
    }
    on_both(|rig| {
        refused(rig, "process.apparmorProfile", |spec| {
            spec["process"]["apparmorProfile"] = json!("some-profile");
        });
    });
}

/// Ids that are no names of files.
#[test]
fn ids_that_lead_elsewhere() {
    on_both(|rig| {
        rig.write_spec();
        for id in ["", "..", "a/b", "/etc", "../x", "a b", "a\n", &"a".repeat(256)] {
            assert_ne!(rig.call(&["create", id]).code, 0, "{id:?}");
        }
        for id in ["_a", "a__b", "a..b", "a+b", "a."] {
            rig.call(&["create", id]).success();
            rig.call(&["delete", "-f", id]).success();
        }
        rig.assert_nothing_left();
    });
}

/// Flags for what is not offered.
#[test]
fn flags_that_are_not_offered() {
    on_ours("it has a systemd driver", |rig| {
        rig.write_spec();
        let call = rig.call(&["--systemd-cgroup", "create", &rig.id]);
        call.exited(1).complains("--systemd-cgroup");
    });
}

/// A document that is nested without an end, in a field that is known and in one that isn't.
#[test]
fn endless_nesting() {
    on_both(|rig| {
        for field in ["linux", "unknown"] {
            let deep = "[".repeat(100_000);
            let text = format!("{{\"ociVersion\": \"1.0.2\", \"{field}\": {deep}");
            fs::write(rig.bundle().join("config.json"), text).unwrap();
            rig.verb(&["create"]).exited(1);
            rig.assert_nothing_left();
        }
    });
}

/// Something else in place of the spec: a directory, a link to itself, a FIFO that nobody writes.
#[test]
fn a_spec_that_is_no_file() {
    on_ours("it waits for a FIFO's writer", |rig| {
        let config = rig.bundle().join("config.json");
        fs::create_dir(&config).unwrap();
        rig.verb(&["create"]).exited(1).complains("config.json");
        fs::remove_dir(&config).unwrap();
        symlink("config.json", &config).unwrap();
        rig.verb(&["create"]).exited(1).complains("config.json");
        fs::remove_file(&config).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &config, kind, mode, 0).unwrap();
        rig.verb(&["create"]).exited(1).complains("config.json");
    });
}
