//! Values that no field can have: each is refused by naming the field, and nothing is made. See
//! `bad.rs` for documents that are none at all.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::bad::{each_refused, refused, tree};
use crate::rig::{machine_has, on_both, on_ours};

/// Numbers that don't fit their fields, which both refuse.
#[test]
fn numbers_that_do_not_fit() {
    let huge = || json!(18_446_744_073_709_551_616_f64);
    on_both(|rig| {
        each_refused(
            rig,
            &[
                ("/process/user/gid", json!(-5)),
                ("/process/user/additionalGids", json!([4_294_967_296_u64])),
                ("/process/user/umask", json!(-1)),
                ("/process/consoleSize/height", json!(-1)),
                ("/process/oomScoreAdj", json!(2001)),
                ("/process/oomScoreAdj", json!(-2001)),
                ("/linux/resources/memory/limit", huge()),
                ("/linux/resources/memory/swappiness", json!(-1)),
                ("/linux/resources/cpu/shares", json!(-1)),
                ("/linux/resources/cpu/period", huge()),
                ("/linux/resources/cpu/quota", json!(1.5)),
                ("/linux/resources/pids/limit", huge()),
                ("/linux/resources/blockIO/weight", json!(65_536)),
                ("/linux/resources/network/classID", json!(-1)),
                ("/linux/uidMappings", json!([{ "containerID": -1, "hostID": 0, "size": 1 }])),
                ("/linux/devices", json!([{ "path": "/dev/x", "type": "c", "major": huge() }])),
                ("/hooks/prestart", json!([{ "path": "/bin/true", "timeout": "soon" }])),
            ],
        );
    });
}

/// Numbers that fit their fields and mean nothing.
#[test]
fn numbers_without_a_meaning() {
    on_ours("it leaves some to the kernel, and forgets others", |rig| {
        each_refused(
            rig,
            &[
                ("/process/user/uid", json!(u32::MAX)),
                ("/process/user/gid", json!(u32::MAX)),
                ("/hooks/poststop", json!([{ "path": "/bin/true", "timeout": 0 }])),
            ],
        );
        let offsets = |offset: Value| json!({ "boottime": offset });
        refused(rig, "linux.timeOffsets", |spec| {
            spec["linux"]["timeOffsets"] = offsets(json!({ "secs": 1 }));
        });
        let namespaces = rig.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "time" }));
        for offset in [json!({ "secs": 1, "nanosecs": 1_000_000_000 }), json!({ "secs": i64::MAX })]
        {
            refused(rig, "linux.timeOffsets", |spec| {
                spec["linux"]["timeOffsets"] = offsets(offset.clone());
            });
        }
    });
}

/// config-linux.md, "Control groups": what the kernel refuses is told with its file, and what it
/// would take for something else before.
#[test]
fn impossible_limits() {
    if !machine_has("/sys/fs/cgroup/memory/tasks") {
        return;
    }
    on_both(|rig| {
        for (name, limit, word) in [
            ("memory", json!({ "limit": -7 }), "memory.limit_in_bytes"),
            ("memory", json!({ "swappiness": 101 }), "memory.swappiness"),
            ("cpu", json!({ "quota": 1 }), "cpu.cfs_quota_us"),
            ("cpu", json!({ "cpus": "one" }), "cpuset.cpus"),
            ("hugepageLimits", json!([{ "pageSize": "3XB", "limit": 1 }]), "hugetlb"),
            ("devices", json!([{ "allow": true, "type": "q", "access": "r" }]), "devices[0]"),
        ] {
            let whole = rig.spec.clone();
            rig.spec["linux"]["resources"][name] = limit;
            let limited = rig.spec["linux"].clone();
            refused(rig, "linux.resources: ", |spec| spec["linux"] = limited.clone());
            refused(rig, word, |spec| spec["linux"] = limited.clone());
            rig.spec = whole;
        }
    });
    on_ours("it takes the letters that it knows", |rig| {
        refused(rig, "devices[0]", |spec| {
            let rules = json!([{ "allow": true, "access": "rwx" }]);
            spec["linux"]["resources"]["devices"] = rules;
        });
    });
}

/// config-linux.md, "User namespace mappings": ranges that overlap, inside or outside, and ranges
/// past the last id.
#[test]
fn impossible_mappings() {
    let map = |ranges: &[[u32; 3]]| {
        let range = |[inside, outside, size]: &[u32; 3]| json!({ "containerID": inside, "hostID": outside, "size": size });
        Value::from_iter(ranges.iter().map(range))
    };
    on_both(|rig| {
        rig.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        let good = map(&[[0, 100_000, 65_536]]);
        for bad in [
            map(&[[0, 100_000, 10], [5, 200_000, 10]]),
            map(&[[0, 100_000, 10], [10, 100_005, 10]]),
            map(&[[0, 100_000, 0]]),
            map(&[[0, u32::MAX - 5, 10]]),
            json!([]),
        ] {
            for (field, other) in [("uidMappings", "gidMappings"), ("gidMappings", "uidMappings")] {
                refused(rig, &format!("linux.{field}"), |spec| {
                    spec["linux"][field] = bad.clone();
                    spec["linux"][other] = good.clone();
                });
            }
        }
    });
}

/// config-linux.md, "Namespaces": a path that is missing, no namespace, or one of another type; a
/// type that is unknown or there twice.
#[test]
fn impossible_namespaces() {
    on_both(|rig| {
        for path in ["/nowhere", "/etc/passwd", "/proc/self/ns/uts", "/proc"] {
            refused(rig, "linux.namespaces", |spec| {
                let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
                list.retain(|namespace| namespace["type"] != "network");
                list.push(json!({ "type": "network", "path": path }));
            });
        }
        for kind in ["luck", "pid", ""] {
            refused(rig, "linux.namespaces", |spec| {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": kind }));
            });
        }
    });
}

/// config-linux.md, "Sysctl": parameters of no namespace, and of one that is the host's.
#[test]
fn parameters_outside_of_their_namespace() {
    on_both(|rig| {
        for name in ["kernel.core_pattern", "vm.swappiness", "net/../kernel/core_pattern", "net"] {
            refused(rig, "linux.sysctl", |spec| spec["linux"]["sysctl"] = json!({ name: "1" }));
        }
        rig.namespace("network", None);
        rig.namespace("ipc", None);
        for name in ["net.ipv4.ip_forward", "kernel.shmmax"] {
            refused(rig, "linux.sysctl", |spec| spec["linux"]["sysctl"] = json!({ name: "1" }));
        }
    });
}

/// config-linux.md, "Seccomp": what is not in its lists.
#[test]
fn impossible_filters() {
    let rule = |key: &str, value: Value| {
        let mut rule = json!({ "names": ["getpid"], "action": "SCMP_ACT_ERRNO" });
        rule[key] = value;
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })
    };
    on_both(|rig| {
        for profile in [
            json!({ "defaultAction": "SCMP_ACT_MAYBE" }),
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ABACUS"] }),
            rule("action", json!("SCMP_ACT_DANCE")),
            rule("args", json!([{ "index": 0, "value": 1, "op": "SCMP_CMP_MAYBE" }])),
            rule("args", json!([{ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }])),
            rule("args", json!([{ "index": 0, "value": -1, "op": "SCMP_CMP_EQ" }])),
        ] {
            refused(rig, "linux.seccomp", |spec| spec["linux"]["seccomp"] = profile.clone());
        }
    });
}

/// config.md, "Linux Process": a capability that is unknown is a warning and no failure.
#[test]
fn an_unknown_capability_is_a_warning() {
    on_both(|rig| {
        for set in ["bounding", "effective", "permitted"] {
            rig.spec["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_FLY"]);
        }
        rig.run(&["true"]).success().complains("CAP_FLY");
    });
}

/// Texts with a zero byte, which the kernel would end early.
#[test]
fn zero_bytes() {
    on_both(|rig| {
        each_refused(
            rig,
            &[("/process/env", json!(["PATH=/bin", "A=a\0b"])), ("/process/cwd", json!("/a\0b"))],
        );
    });
    on_ours("it has other moments for these", |rig| {
        each_refused(
            rig,
            &[
                ("/process/args", json!(["true", "a\0b"])),
                ("/root/path", json!("root\0fs")),
                ("/hostname", json!("a\0b")),
                ("/linux/cgroupsPath", json!("/a\0b")),
                ("/linux/maskedPaths", json!(["/a\0b"])),
                ("/linux/readonlyPaths", json!(["/a\0b"])),
                ("/mounts", json!([{ "destination": "/a\0b", "type": "tmpfs", "source": "t" }])),
            ],
        );
    });
}

/// Words that stand for nothing, and paths that must be absolute.
#[test]
fn other_nonsense() {
    on_ours("it is more lenient", |rig| {
        let device = |key: &str, value: Value| {
            let mut device = json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": 3 });
            device[key] = value;
            json!([device])
        };
        each_refused(
            rig,
            &[
                ("/ociVersion", json!("2.0.0")),
                ("/ociVersion", json!("newest")),
                ("/process/args", json!([])),
                ("/process/env", json!(["novalue"])),
                ("/process/cwd", json!("tmp")),
                ("/process/cwd", json!("")),
                ("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_LUCK", "priority": 1 })),
                ("/process/scheduler", json!({ "policy": "SCHED_LUCK" })),
                ("/linux/devices", device("type", json!("x"))),
                ("/linux/devices", device("path", json!("dev/x"))),
                ("/linux/maskedPaths", json!(["proc/kcore"])),
                ("/linux/readonlyPaths", json!(["proc/sys"])),
                ("/linux/personality", json!({ "domain": "SOLARIS" })),
                ("/hooks/createRuntime", json!([{ "path": "true" }])),
                ("/hostname", json!("a".repeat(65))),
            ],
        );
    });
}

/// runtime.md, "Create": a mount whose destination is reached through a link of the root's stays in
/// the root, wherever the link leads.
#[test]
fn links_do_not_lead_out() {
    on_both(|rig| {
        let outside = rig.bundle().join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, rig.root().join("absolute")).unwrap();
        symlink("../../../../../../outside", rig.root().join("relative")).unwrap();
        let source = rig.bundle().join("source");
        fs::create_dir(&source).unwrap();
        for destination in ["/absolute/a", "/relative/b"] {
            rig.bind(&source, destination, &["rbind"]);
            rig.add_mount(json!({
                "destination": format!("{destination}-file"), "type": "bind",
                "source": rig.bundle().join("config.json"), "options": ["bind"],
            }));
            rig.add_mount(json!({
                "destination": format!("{destination}-own"), "type": "tmpfs", "source": "tmpfs",
            }));
        }
        rig.run(&["true"]);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{:?}", tree(&outside));
    });
}
