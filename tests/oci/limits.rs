//! `linux.resources` and `linux.cgroupsPath` on v1; the guest's suite has v2.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::rig::{Rig, machine_has, on_both, on_both_since, on_ours};

/// Runs a container with `resources` and returns values of its control group.
fn values(rig: &mut Rig, resources: Value, files: &[(&str, &str)]) -> Vec<String> {
    let devices = json!([{ "allow": false, "access": "rwm" }]);
    rig.spec["linux"]["resources"] = resources;
    rig.spec["linux"]["resources"]["devices"] = devices;
    rig.create(&["sleep", "1000"]).success();
    let read = |(controller, file): &(&str, &str)| rig.cgroup(controller, file);
    let values = files.iter().map(read).collect();
    rig.verb(&["delete", "-f"]).success();
    values
}

fn has(controller: &str, file: &str) -> bool {
    machine_has(&format!("/sys/fs/cgroup/{controller}/{file}"))
}

/// config-linux.md, "Cgroups Path": an absolute path is below the hierarchy's mount point; missing
/// parents are made.
#[test]
fn the_path_is_below_the_hierarchy() {
    if !has("memory", "tasks") {
        return;
    }
    on_both(|rig| {
        let path = format!("/{}/a/b", rig.id);
        rig.spec["linux"]["cgroupsPath"] = json!(path);
        rig.create(&["sleep", "1000"]).success();
        let pid = rig.state()["pid"].to_string();
        let text = fs::read_to_string(rig_cgroup("memory", &path)).unwrap();
        assert_eq!(text.trim(), pid);
        rig.verb(&["delete", "-f"]).success();
        assert!(!rig_cgroup("memory", &path).exists());
        // The reference leaves what it made above.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let top = hierarchy.path().join(&rig.id);
            let _ = fs::remove_dir(top.join("a"));
            let _ = fs::remove_dir(top);
        }
    });
}

fn rig_cgroup(controller: &str, path: &str) -> std::path::PathBuf {
    Path::new("/sys/fs/cgroup")
        .join(controller)
        .join(path.trim_start_matches('/'))
        .join("cgroup.procs")
}

/// config-linux.md, "Memory".
#[test]
fn memory() {
    if !has("memory", "tasks") {
        return;
    }
    on_both(|rig| {
        let resources = json!({ "memory": {
            "limit": 64 << 20, "reservation": 32 << 20, "swappiness": 7,
            "disableOOMKiller": true,
        } });
        let files = [
            ("memory", "memory.limit_in_bytes"),
            ("memory", "memory.soft_limit_in_bytes"),
            ("memory", "memory.swappiness"),
            ("memory", "memory.oom_control"),
        ];
        let values = values(rig, resources, &files);
        assert_eq!(values[..3], [(64 << 20).to_string(), (32 << 20).to_string(), "7".into()]);
        assert!(values[3].starts_with("oom_kill_disable 1"), "{values:?}");
    });
}

/// config-linux.md, "Memory": `swap` is memory and swap together.
#[test]
fn memory_and_swap() {
    if !has("memory", "memory.memsw.limit_in_bytes") {
        return;
    }
    on_both(|rig| {
        let resources = json!({ "memory": { "limit": 64 << 20, "swap": 128 << 20 } });
        let files = [("memory", "memory.memsw.limit_in_bytes")];
        assert_eq!(values(rig, resources, &files), [(128 << 20).to_string()]);
    });
}

/// config-linux.md, "CPU".
#[test]
fn processors() {
    if !has("cpu", "cpu.cfs_quota_us") || !has("cpuset", "cpuset.cpus") {
        return;
    }
    on_both(|rig| {
        let resources = json!({ "cpu": {
            "shares": 512, "quota": 50_000, "period": 200_000, "cpus": "0", "mems": "0",
        } });
        let files = [
            ("cpu", "cpu.shares"),
            ("cpu", "cpu.cfs_quota_us"),
            ("cpu", "cpu.cfs_period_us"),
            ("cpuset", "cpuset.cpus"),
            ("cpuset", "cpuset.mems"),
        ];
        assert_eq!(values(rig, resources, &files), ["512", "50000", "200000", "0", "0"]);
    });
}

/// config-linux.md, "CPU": `burst` is how much of the quota may be saved up.
#[test]
fn saved_processor_time() {
    if !has("cpu", "cpu.cfs_burst_us") && !Path::new("/sys/fs/cgroup/cpu/tasks").exists() {
        return;
    }
    on_both_since((1, 2), |rig| {
        let resources = json!({ "cpu": { "quota": 50_000, "period": 100_000, "burst": 20_000 } });
        let files = [("cpu", "cpu.cfs_burst_us")];
        assert_eq!(values(rig, resources, &files), ["20000"]);
    });
}

/// config-linux.md, "CPU": `idle` is the lowest of all priorities.
#[test]
fn idle_containers() {
    if !has("cpu", "tasks") {
        return;
    }
    on_both(|rig| {
        // runc 1.1 knows it on v2 only.
        if rig.runtime == crate::rig::Runtime::Runc {
            return crate::rig::skip("runc: 1.1 has no cpu.idle on v1");
        }
        let resources = json!({ "cpu": { "idle": 1 } });
        assert_eq!(values(rig, resources, &[("cpu", "cpu.idle")]), ["1"]);
    });
}

/// config-linux.md, "PIDs".
#[test]
fn numbers_of_processes() {
    if !has("pids", "tasks") {
        return;
    }
    on_both(|rig| {
        let resources = json!({ "pids": { "limit": 11 } });
        assert_eq!(values(rig, resources, &[("pids", "pids.max")]), ["11"]);
        rig.spec["linux"]["resources"]["pids"] = json!({ "limit": 3 });
        rig.run(&["sh", "-c", "sleep 9 & sleep 9 & sleep 9 & sleep 9 & wait"]).complains("fork");
    });
    on_ours("1.1 takes 0 for no limit, as the specification did before 1.3", |rig| {
        let resources = json!({ "pids": { "limit": 0 } });
        assert_eq!(values(rig, resources, &[("pids", "pids.max")]), ["0"]);
    });
}

/// config-linux.md, "Block IO": rates of devices.
#[test]
fn block_devices() {
    if !has("blkio", "blkio.throttle.read_bps_device") {
        return;
    }
    let Some((major, minor)) = disk() else {
        return crate::rig::skip("both: this machine has no disk");
    };
    on_both(|rig| {
        let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
        let resources = json!({ "blockIO": {
            "throttleReadBpsDevice": rate(1000), "throttleWriteBpsDevice": rate(2000),
            "throttleReadIOPSDevice": rate(3000), "throttleWriteIOPSDevice": rate(4000),
        } });
        let files = [
            ("blkio", "blkio.throttle.read_bps_device"),
            ("blkio", "blkio.throttle.write_bps_device"),
            ("blkio", "blkio.throttle.read_iops_device"),
            ("blkio", "blkio.throttle.write_iops_device"),
        ];
        let expected = [1000, 2000, 3000, 4000].map(|rate| format!("{major}:{minor} {rate}"));
        assert_eq!(values(rig, resources, &files), expected);
    });
}

fn disk() -> Option<(u64, u64)> {
    let disks = fs::read_dir("/sys/block").ok()?.flatten();
    let numbers = disks.filter_map(|disk| fs::read_to_string(disk.path().join("dev")).ok());
    let parsed = numbers.filter_map(|text| {
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    parsed.into_iter().next()
}

/// config-linux.md, "Huge page limits".
#[test]
fn huge_pages() {
    if !has("hugetlb", "hugetlb.2MB.limit_in_bytes") {
        return;
    }
    on_both(|rig| {
        let resources = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] });
        let files = [("hugetlb", "hugetlb.2MB.limit_in_bytes")];
        assert_eq!(values(rig, resources, &files), [(4 << 20).to_string()]);
    });
}

/// config-linux.md, "Unified": values for v2; on v1 they can't be followed.
#[test]
fn values_of_v2_need_v2() {
    if !has("memory", "tasks") {
        return;
    }
    on_both(|rig| {
        rig.spec["linux"]["resources"]["unified"] = json!({ "memory.high": "1000000" });
        assert_ne!(rig.create(&["true"]).code, 0);
    });
}

/// config-linux.md, "Memory": a container that uses more than its limit is killed.
#[test]
fn too_much_memory_is_fatal() {
    if !has("memory", "tasks") {
        return;
    }
    on_both(|rig| {
        rig.spec["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
        let greedy = rig.run(&["dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=48"]);
        assert_ne!(greedy.code, 0);
    });
}

/// runc's manual: `update` changes limits of a running container, by flags or by a document.
#[test]
fn limits_are_updated() {
    if !has("memory", "tasks") {
        return;
    }
    on_both(|rig| {
        rig.spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
        rig.with_sleeper(|rig| {
            rig.verb(&["update", "--memory", "33554432", "--pids-limit", "20"]).success();
            assert_eq!(rig.cgroup("memory", "memory.limit_in_bytes"), (32 << 20).to_string());
            assert_eq!(rig.cgroup("pids", "pids.max"), "20");
            let file = rig.bundle().join("resources.json");
            let document = json!({ "memory": { "limit": 48 << 20 }, "cpu": { "shares": 100 } });
            fs::write(&file, document.to_string()).unwrap();
            rig.verb(&["update", "--resources", file.to_str().unwrap()]).success();
            assert_eq!(rig.cgroup("memory", "memory.limit_in_bytes"), (48 << 20).to_string());
            assert_eq!(rig.cgroup("cpu", "cpu.shares"), "100");
            assert_eq!(rig.cgroup("pids", "pids.max"), "20");
        });
    });
}

/// runc's manual: `events --stats` prints figures.
#[test]
fn figures_are_printed() {
    on_both(|rig| {
        rig.spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
        rig.with_sleeper(|rig| {
            let line = rig.verb(&["events", "--stats"]).success().stdout;
            let event: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(event["type"], "stats");
            assert_eq!(event["id"], json!(rig.id));
            let data = &event["data"];
            assert_eq!(data["memory"]["usage"]["limit"], 64 << 20);
            assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0);
            assert!(data["memory"]["raw"].as_object().unwrap().len() > 5);
            assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
        });
    });
}

/// config-linux.md, "IntelRdt": where it isn't offered, asking for it is an error.
#[test]
fn intel_rdt_is_refused() {
    on_ours("it depends on the processor", |rig| {
        rig.spec["linux"]["intelRdt"] = json!({ "closID": "a", "l3CacheSchema": "L3:0=f" });
        rig.create(&["true"]).exited(1).complains("linux.intelRdt");
    });
}
