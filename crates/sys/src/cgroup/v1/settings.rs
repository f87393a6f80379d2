//! Resources as values for the files of v1.

use berth_types::spec::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};
use berth_types::{Error, Result};

use crate::cgroup::Controller as C;
use crate::cgroup::setting::Setting;

/// Everything but devices.
pub(super) fn settings(resources: &Resources) -> Result<Vec<Setting>> {
    if !resources.unified.is_empty() {
        return Err(Error::invalid_argument(
            "the spec has values for cgroup v2 (\"unified\") and this machine has v1: drop them",
        ));
    }
    let mut all = Vec::new();
    if let Some(value) = &resources.memory {
        memory(value, &mut all);
    }
    if let Some(value) = &resources.cpu {
        cpu(value, &mut all);
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        let value = if limit < 0 { "max".to_owned() } else { limit.to_string() };
        all.push(Setting::new(C::Pids, "pids.max", value));
    }
    if let Some(value) = &resources.block_io {
        block_io(value, &mut all);
    }
    for limit in &resources.hugepage_limits {
        for what in ["", ".rsvd"] {
            let file = format!("hugetlb.{}{what}.limit_in_bytes", limit.page_size);
            all.push(Setting::new(C::Hugetlb, file, limit.limit));
        }
    }
    network(resources, &mut all);
    for (device, limit) in &resources.rdma {
        let part = |value: Option<u32>| value.map_or("max".to_owned(), |value| value.to_string());
        let (handles, objects) = (part(limit.hca_handles), part(limit.hca_objects));
        let value = format!("{device} hca_handle={handles} hca_object={objects}");
        all.push(Setting::new(C::Rdma, "rdma.max", value));
    }
    Ok(all)
}

fn memory(memory: &Memory, all: &mut Vec<Setting>) {
    let mut push = |file: &str, value: i64| all.push(Setting::new(C::Memory, file, value));
    // Zero is how clients write "not said".
    let said = |value: Option<i64>| value.filter(|value| *value != 0);
    let limit = said(memory.limit);
    let swap = said(memory.swap).or(limit.filter(|limit| *limit < 0));
    if let Some(value) = limit {
        push("memory.limit_in_bytes", value);
    }
    if let Some(value) = swap {
        push("memory.memsw.limit_in_bytes", value);
    }
    if let Some(value) = said(memory.reservation) {
        push("memory.soft_limit_in_bytes", value);
    }
    if let Some(value) = said(memory.kernel_tcp) {
        push("memory.kmem.tcp.limit_in_bytes", value);
    }
    if let Some(value) = memory.swappiness {
        // Kernels take more, which the specification hasn't.
        push(
            "memory.swappiness",
            i64::try_from(value).ok().filter(|it| *it <= 100).unwrap_or(i64::MAX),
        );
    }
    if let Some(value) = memory.disable_oom_killer {
        push("memory.oom_control", value.into());
    }
}

/// Refuses a limit below `usage` where the resources ask for that check.
pub(super) fn check_memory(resources: &Resources, usage: Option<String>) -> Result<()> {
    let Some(memory) = resources.memory.as_ref().filter(|memory| memory.check_before_update) else {
        return Ok(());
    };
    let usage: i64 = usage.and_then(|usage| usage.parse().ok()).unwrap_or(0);
    match memory.limit {
        Some(limit) if limit > 0 && limit < usage => Err(Error::failed_precondition(format!(
            "the memory limit {limit} is below what is in use, {usage}: choose a higher one"
        ))),
        _ => Ok(()),
    }
}

fn cpu(cpu: &Cpu, all: &mut Vec<Setting>) {
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        all.push(Setting::new(C::Cpu, "cpu.shares", shares));
    }
    if let Some(idle) = cpu.idle {
        all.push(Setting::new(C::Cpu, "cpu.idle", idle));
    }
    if let Some(period) = cpu.period.filter(|period| *period != 0) {
        all.push(Setting::new(C::Cpu, "cpu.cfs_period_us", period));
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        all.push(Setting::new(C::Cpu, "cpu.cfs_quota_us", quota.max(-1)));
    }
    if let Some(burst) = cpu.burst {
        all.push(Setting::new(C::Cpu, "cpu.cfs_burst_us", burst));
    }
    if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
        all.push(Setting::new(C::Cpu, "cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
        all.push(Setting::new(C::Cpu, "cpu.rt_runtime_us", runtime));
    }
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            all.push(Setting::new(C::Cpuset, file, value));
        }
    }
}

fn block_io(block: &BlockIo, all: &mut Vec<Setting>) {
    let mut push = |file: &str, value: String| all.push(Setting::new(C::BlockIo, file, value));
    if let Some(weight) = block.weight.filter(|weight| *weight != 0) {
        push("blkio.bfq.weight", weight.to_string());
    }
    for device in &block.weight_device {
        if let Some(weight) = device.weight {
            let value = format!("{}:{} {weight}", device.major, device.minor);
            push("blkio.bfq.weight_device", value);
        }
    }
    let rates: [(&str, &[ThrottleDevice]); 4] = [
        ("blkio.throttle.read_bps_device", &block.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &block.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &block.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &block.throttle_write_iops_device),
    ];
    for (file, devices) in rates {
        for device in devices {
            push(file, format!("{}:{} {}", device.major, device.minor, device.rate));
        }
    }
}

fn network(resources: &Resources, all: &mut Vec<Setting>) {
    let Some(network) = &resources.network else { return };
    if let Some(class) = network.class_id.filter(|class| *class != 0) {
        all.push(Setting::new(C::NetCls, "net_cls.classid", class));
    }
    for interface in &network.priorities {
        let value = format!("{} {}", interface.name, interface.priority);
        all.push(Setting::new(C::NetPrio, "net_prio.ifpriomap", value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> Vec<(String, String)> {
        let resources = serde_json::from_str(json).unwrap();
        let all = settings(&resources).unwrap();
        all.into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.to_owned(), value.to_owned())
    }

    #[test]
    fn memory_and_swap() {
        let all = written(r#"{"memory":{"limit":4194304,"swap":8388608,"reservation":0}}"#);
        let expected = [
            pair("memory.limit_in_bytes", "4194304"),
            pair("memory.memsw.limit_in_bytes", "8388608"),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn no_memory_limit_lifts_that_of_swap() {
        let all = written(r#"{"memory":{"limit":-1}}"#);
        let expected =
            [pair("memory.limit_in_bytes", "-1"), pair("memory.memsw.limit_in_bytes", "-1")];
        assert_eq!(all, expected);
    }

    #[test]
    fn processor_time_and_pids() {
        for (limit, expected) in [(-1, "max"), (0, "0"), (7, "7")] {
            let cpu = r#"{"shares":0,"quota":50000,"period":100000}"#;
            let all = written(&format!(r#"{{"cpu":{cpu},"pids":{{"limit":{limit}}}}}"#));
            let expected = [
                pair("cpu.cfs_period_us", "100000"),
                pair("cpu.cfs_quota_us", "50000"),
                pair("pids.max", expected),
            ];
            assert_eq!(all, expected);
        }
    }

    #[test]
    fn v2_values_are_refused() {
        let resources = serde_json::from_str(r#"{"unified":{"memory.high":"1"}}"#).unwrap();
        assert!(settings(&resources).is_err());
    }

    #[test]
    fn a_limit_below_use_is_refused_on_demand() {
        let check = |json: &str| {
            check_memory(&serde_json::from_str(json).unwrap(), Some("5000".to_owned()))
        };
        assert!(check(r#"{"memory":{"limit":4096,"checkBeforeUpdate":true}}"#).is_err());
        assert!(check(r#"{"memory":{"limit":8192,"checkBeforeUpdate":true}}"#).is_ok());
        assert!(check(r#"{"memory":{"limit":4096}}"#).is_ok());
    }
}
