//! `linux.namespaces`, the names of host and domain, `linux.timeOffsets` and `linux.sysctl`.

use std::fs;

use serde_json::json;

use crate::rig::{Rig, on_both, on_both_since, on_ours};

const FILES: [(&str, &str); 5] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")];

fn own(file: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{file}")).unwrap().to_str().unwrap().to_owned()
}

/// config-linux.md, "Namespaces": without a path a new namespace of the type is made, and what is
/// not listed is inherited from the runtime.
#[test]
fn namespaces_are_new_or_inherited() {
    on_both(|rig| {
        for (kind, file) in FILES {
            let line = format!("readlink /proc/self/ns/{file}");
            assert_ne!(rig.sh(&line), own(file), "{kind}");
            rig.namespace(kind, None);
            assert_eq!(rig.sh(&line), own(file), "{kind}");
        }
        assert_ne!(rig.sh("readlink /proc/self/ns/mnt"), own("mnt"));
        assert_eq!(rig.sh("readlink /proc/self/ns/user"), own("user"));
    });
}

/// config-linux.md, "Namespaces": with a path the process is put into that namespace.
#[test]
fn namespaces_are_joined_by_path() {
    on_both(|pod| {
        let runtime = pod.runtime;
        pod.with_sleeper(|pod| {
            let pid = pod.state()["pid"].clone();
            let mut rig = Rig::new(runtime);
            for (kind, file) in FILES.into_iter().filter(|(kind, _)| *kind != "cgroup") {
                rig.namespace(kind, Some(&format!("/proc/{pid}/ns/{file}")));
            }
            for (kind, file) in FILES.into_iter().filter(|(kind, _)| *kind != "cgroup") {
                let theirs = fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
                let ours = rig.sh(&format!("readlink /proc/self/ns/{file}"));
                assert_eq!(ours, theirs.to_str().unwrap(), "{kind}");
            }
            rig.assert_nothing_left();
        });
    });
}

/// config-linux.md, "Namespaces": a path to no namespace of that type is an error, as is a type
/// that is listed twice.
#[test]
fn wrong_namespaces_are_refused() {
    on_both(|rig| {
        for path in ["/proc/self/ns/net", "/nowhere", "/etc/passwd"] {
            rig.namespace("ipc", Some(path));
            assert_ne!(rig.create(&["true"]).code, 0, "{path}");
        }
        rig.namespace("ipc", None);
        for _ in 0..2 {
            let list = rig.spec["linux"]["namespaces"].as_array_mut().unwrap();
            list.push(json!({ "type": "ipc" }));
        }
        assert_ne!(rig.create(&["true"]).code, 0);
        rig.namespace("ipc", None);
        rig.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "ether" }));
        assert_ne!(rig.create(&["true"]).code, 0);
    });
}

/// config.md, "Hostname".
#[test]
fn the_hostname_is_set() {
    on_both(|rig| {
        rig.spec["hostname"] = json!("a.name");
        assert_eq!(rig.sh("hostname"), "a.name");
        rig.namespace("uts", None);
        assert_ne!(rig.create(&["true"]).code, 0, "the host's name would change");
    });
}

/// config.md, "Domainname".
#[test]
fn the_domainname_is_set() {
    on_both_since((1, 2), |rig| {
        rig.spec["domainname"] = json!("example.org");
        assert_eq!(rig.sh("cat /proc/sys/kernel/domainname"), "example.org");
        rig.namespace("uts", None);
        assert_ne!(rig.create(&["true"]).code, 0, "the host's name would change");
    });
}

/// config-linux.md, "Namespaces" and "Offset for Time Namespace".
#[test]
fn clocks_are_ahead() {
    on_both_since((1, 2), |rig| {
        let list = rig.spec["linux"]["namespaces"].as_array_mut().unwrap();
        list.push(json!({ "type": "time" }));
        rig.spec["linux"]["timeOffsets"] = json!({
            "boottime": { "secs": 1_000_000, "nanosecs": 5 }, "monotonic": { "secs": 7200 },
        });
        assert_ne!(rig.sh("readlink /proc/self/ns/time"), own("time"));
        let uptime = rig.sh("cut -d. -f1 /proc/uptime").parse::<u64>().unwrap();
        assert!(uptime > 1_000_000, "{uptime}");
        let offsets = rig.sh("cat /proc/self/timens_offsets");
        let words: Vec<&str> = offsets.split_whitespace().collect();
        assert_eq!(words, ["monotonic", "7200", "0", "boottime", "1000000", "5"]);
    });
    on_both_since((1, 2), |rig| {
        rig.spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } });
        assert_ne!(rig.create(&["true"]).code, 0, "the host's clocks would change");
    });
}

/// config-linux.md, "Sysctl": kernel parameters of the container's namespaces.
#[test]
fn parameters_are_set() {
    on_both(|rig| {
        rig.spec["linux"]["sysctl"] = json!({
            "net.ipv4.ip_forward": "1", "kernel.msgmax": "4444", "fs.mqueue.msg_max": "7",
        });
        let line = "cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax fs/mqueue/msg_max";
        assert_eq!(rig.sh(line), "1\n4444\n7");
    });
}

/// config-linux.md, "Sysctl": what is not a namespace's would change the host.
#[test]
fn parameters_of_the_host_are_refused() {
    on_both(|rig| {
        for name in ["vm.swappiness", "kernel.core_pattern", "no.such.thing"] {
            rig.spec["linux"]["sysctl"] = json!({ name: "1" });
            assert_ne!(rig.create(&["true"]).code, 0, "{name}");
        }
        rig.spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        rig.namespace("network", None);
        assert_ne!(rig.create(&["true"]).code, 0, "the host's network would change");
    });
}

/// config-linux.md, "Network Devices": an interface of the host moves into the container with its
/// addresses, and may get another name.
#[test]
fn interfaces_move_in() {
    on_ours("1.1 has no network devices", |rig| {
        let name = format!("d{}", std::process::id());
        let ip = |args: &[&str]| berth_tests::Finished::run("ip", args, b"");
        ip(&["link", "add", &name, "type", "veth"]).success();
        ip(&["addr", "add", "10.99.1.2/24", "dev", &name]).success();
        ip(&["link", "set", &name, "up"]).success();
        rig.spec["linux"]["netDevices"] = json!({ &name: { "name": "inner" } });
        let shown = rig.sh("ls /sys/class/net; cat /proc/net/fib_trie /sys/class/net/inner/flags");
        assert!(shown.contains("inner") && shown.contains("10.99.1.2"), "{shown}");
        assert!(shown.ends_with('3'), "it is not up: {shown}");
        assert_ne!(ip(&["link", "show", &name]).code, 0, "it is still on the host");
    });
}
