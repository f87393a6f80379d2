//! Specs that can't be followed: each is refused by naming the field, and nothing is left.

use std::fs;

use serde_json::{Value, json};

use crate::rig::{Rig, Runtime, on_both};

/// Creates a container from the spec after `change`, which must fail. Ours names the `field`; the
/// reference has words of its own.
fn refused(rig: &mut Rig, field: &str, change: impl FnOnce(&mut Value)) {
    let whole = rig.spec.clone();
    change(&mut rig.spec);
    let refused = rig.create(&["true"]);
    assert_ne!(refused.code, 0, "{field} {:?}", rig.runtime);
    if rig.runtime == Runtime::Berth {
        refused.exited(1).complains(field);
    }
    rig.assert_nothing_left();
    rig.spec = whole;
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
    crate::rig::on_ours("it reads whatever there is", |rig| {
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
    crate::rig::on_ours("it takes such paths for others, in the root", |rig| {
        refused(rig, "mounts", |spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.push(json!({ "destination": "/../../etc", "type": "tmpfs", "source": "t" }));
        });
    });
}

/// Control groups elsewhere.
#[test]
fn control_groups_elsewhere() {
    crate::rig::on_ours("it takes such paths for others", |rig| {
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
    crate::rig::on_ours("it passes over labels", |rig| {
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
        for id in ["", "..", "a/b", "/etc", "../x"] {
            assert_ne!(rig.call(&["create", id]).code, 0, "{id:?}");
        }
        rig.assert_nothing_left();
    });
}

/// Flags for what is not offered.
#[test]
fn flags_that_are_not_offered() {
    crate::rig::on_ours("it has a systemd driver", |rig| {
        rig.write_spec();
        let call = rig.call(&["--systemd-cgroup", "create", &rig.id]);
        call.exited(1).complains("--systemd-cgroup");
    });
}
