//! Resources as values for the files of v2.

use berth_types::spec::{BlockIo, Cpu, Memory, Resources};
use berth_types::{Error, Result};

use crate::cgroup::Controller as C;
use crate::cgroup::setting::Setting;

/// The period of a quota whose spec names none, in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;

/// Everything but devices. `cpu_max` is what `cpu.max` says now, for specs that change one half.
pub(super) fn settings(resources: &Resources, cpu_max: Option<&str>) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    if let Some(value) = &resources.memory {
        memory(value, &mut all)?;
    }
    if let Some(value) = &resources.cpu {
        cpu(value, cpu_max, &mut all);
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
            let file = format!("hugetlb.{}{what}.max", limit.page_size);
            all.push(Setting::new(C::Hugetlb, file, limit.limit));
        }
    }
    for (device, limit) in &resources.rdma {
        let part = |value: Option<u32>| value.map_or("max".to_owned(), |value| value.to_string());
        let (handles, objects) = (part(limit.hca_handles), part(limit.hca_objects));
        let value = format!("{device} hca_handle={handles} hca_object={objects}");
        all.push(Setting::new(C::Rdma, "rdma.max", value));
    }
    for (file, value) in &resources.unified {
        all.push(unified(file, value)?);
    }
    Ok(all)
}

/// A file named by the spec itself: one of a controller or of the kernel's core, in the cgroup.
fn unified(file: &str, value: &str) -> Result<Setting> {
    match file.split_once('.') {
        Some((owner, _)) if !owner.is_empty() && !file.contains('/') => {
            let controller = C::from_v2(owner);
            Ok(Setting { controller, file: file.to_owned(), value: value.to_owned() })
        }
        _ => Err(Error::invalid_argument(format!(
            "unified resource {file:?} is no file of a cgroup: name one such as memory.high"
        ))),
    }
}

fn memory(memory: &Memory, all: &mut Vec<Setting>) -> Result<()> {
    let mut push = |file: &str, value: String| all.push(Setting::new(C::Memory, file, value));
    // Zero is how clients write "not said".
    let said = |value: Option<i64>| value.filter(|value| *value != 0);
    let limit = said(memory.limit);
    let swap = said(memory.swap).or(limit.filter(|limit| *limit < 0));
    if let Some(limit) = limit {
        push("memory.max", or_max(limit));
    }
    if let Some(swap) = swap {
        push("memory.swap.max", swap_only(swap, limit)?);
    }
    if let Some(reservation) = said(memory.reservation) {
        push("memory.low", or_max(reservation));
    }
    Ok(())
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Specs count memory and swap together, v2 counts swap alone.
fn swap_only(both: i64, limit: Option<i64>) -> Result<String> {
    match limit {
        _ if both < 0 => Ok("max".to_owned()),
        Some(limit) if limit > 0 && both >= limit => Ok((both - limit).to_string()),
        Some(limit) if limit > 0 => Err(Error::invalid_argument(format!(
            "memory and swap, {both}, is less than memory, {limit}: raise it"
        ))),
        _ => Err(Error::invalid_argument(
            "a limit of memory and swap needs one of memory beside it: give both",
        )),
    }
}

fn cpu(cpu: &Cpu, cpu_max: Option<&str>, all: &mut Vec<Setting>) {
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        all.push(Setting::new(C::Cpu, "cpu.weight", weight(shares)));
    }
    if let Some(idle) = cpu.idle {
        all.push(Setting::new(C::Cpu, "cpu.idle", idle));
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let (now_quota, now_period) =
            cpu_max.and_then(|text| text.split_once(' ')).unwrap_or(("max", ""));
        let quota = quota.map_or(now_quota.to_owned(), or_max);
        let period = period.or(now_period.parse().ok()).unwrap_or(PERIOD);
        all.push(Setting::new(C::Cpu, "cpu.max", format!("{quota} {period}")));
    }
    if let Some(burst) = cpu.burst {
        all.push(Setting::new(C::Cpu, "cpu.max.burst", burst));
    }
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            all.push(Setting::new(C::Cpuset, file, value));
        }
    }
}

/// Shares (2 to 262144, usually 1024) as a weight (1 to 10000, usually 100): the curve that the
/// runtimes have agreed upon, which maps ends and middle onto each other.
fn weight(shares: u64) -> u64 {
    let exponent = (shares.clamp(2, 262_144) as f64).log2();
    let weight = 10f64.powf((exponent * exponent + 125.0 * exponent) / 612.0 - 7.0 / 34.0);
    // Without the subtraction rounding noise lifts 100 to 101.
    ((weight - 1e-6).ceil() as u64).clamp(1, 10_000)
}

/// Where weights go when the scheduler BFQ is there.
pub(super) const BFQ_WEIGHT: &str = "io.bfq.weight";

fn block_io(block: &BlockIo, all: &mut Vec<Setting>) {
    let mut push = |file: &str, value: String| all.push(Setting::new(C::BlockIo, file, value));
    if let Some(weight) = block.weight.filter(|weight| *weight != 0) {
        push(BFQ_WEIGHT, weight.to_string());
    }
    for device in &block.weight_device {
        if let Some(weight) = device.weight {
            push(BFQ_WEIGHT, format!("{}:{} {weight}", device.major, device.minor));
        }
    }
    let rates = [
        ("rbps", &block.throttle_read_bps_device),
        ("wbps", &block.throttle_write_bps_device),
        ("riops", &block.throttle_read_iops_device),
        ("wiops", &block.throttle_write_iops_device),
    ];
    for (key, devices) in rates {
        for device in devices {
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            push("io.max", format!("{}:{} {key}={rate}", device.major, device.minor));
        }
    }
}

/// A weight for BFQ (10 to 1000) as one for the kernel's own model of costs (1 to 10000), by the
/// line that the runtimes have agreed upon.
pub(super) fn without_bfq(setting: &Setting) -> Setting {
    let (device, weight) = setting.value.rsplit_once(' ').unwrap_or(("default", &setting.value));
    let value = match weight.parse::<u64>() {
        Ok(weight) => 1 + weight.saturating_sub(10) * 9999 / 990,
        // The kernel says that it is no number.
        Err(_) => 0,
    };
    Setting::new(C::BlockIo, "io.weight", format!("{device} {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str, cpu_max: Option<&str>) -> Result<Vec<String>> {
        let all = settings(&serde_json::from_str(json).unwrap(), cpu_max)?;
        Ok(all.into_iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect())
    }

    #[test]
    fn swap_is_counted_alone() {
        let all = written(r#"{"memory":{"limit":100,"swap":150,"reservation":-1}}"#, None);
        assert_eq!(all.unwrap(), ["memory.max=100", "memory.swap.max=50", "memory.low=max"]);
        assert!(written(r#"{"memory":{"limit":100,"swap":50}}"#, None).is_err());
        assert!(written(r#"{"memory":{"swap":50}}"#, None).is_err());
        let lifted = written(r#"{"memory":{"limit":-1}}"#, None);
        assert_eq!(lifted.unwrap(), ["memory.max=max", "memory.swap.max=max"]);
    }

    #[test]
    fn half_a_quota_keeps_the_other_half() {
        let period = written(r#"{"cpu":{"period":50000}}"#, Some("20000 100000"));
        assert_eq!(period.unwrap(), ["cpu.max=20000 50000"]);
        let quota = written(r#"{"cpu":{"quota":-1}}"#, Some("20000 50000"));
        assert_eq!(quota.unwrap(), ["cpu.max=max 50000"]);
        assert_eq!(written(r#"{"cpu":{"quota":7000}}"#, None).unwrap(), ["cpu.max=7000 100000"]);
    }

    #[test]
    fn weights() {
        let pairs = [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)];
        for (shares, expected) in pairs {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!(weight(512) < 100 && weight(2048) > 100);
    }

    #[test]
    fn weights_without_bfq() {
        let all = |json| settings(&serde_json::from_str(json).unwrap(), None).unwrap();
        let weights = all(
            r#"{"blockIO":{"weight":10,"weightDevice":[{"major":8,"minor":16,"weight":1000}]}}"#,
        );
        let values: Vec<_> = weights.iter().map(|one| without_bfq(one).value).collect();
        assert_eq!(values, ["default 1", "8:16 10000"]);
    }

    #[test]
    fn only_files_of_the_cgroup_itself() {
        for bad in ["../memory.max", "memory", ".x", "a/b.c"] {
            assert!(unified(bad, "1").is_err(), "{bad}");
        }
        assert_eq!(unified("memory.high", "1").unwrap().controller, Some(C::Memory));
        assert_eq!(unified("cgroup.max.depth", "1").unwrap().controller, None);
    }
}
