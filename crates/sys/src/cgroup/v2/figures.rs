//! What v2 counts.

use std::fs;

use berth_types::Result;

use super::Tree;
use crate::cgroup::stats::{BlockIoEntry, Flat, Hugetlb, Rdma, Stats};
use crate::cgroup::{Pressure, Version};

/// `cpu.stat` counts in microseconds.
const NANOSECONDS: u64 = 1000;

pub(super) fn stats(tree: &Tree) -> Result<Stats> {
    let mut stats = Stats::of(Version::V2);
    cpu(tree, &mut stats)?;
    memory(tree, &mut stats)?;
    stats.pids.current = number(tree, "pids.current")?;
    stats.pids.limit = limit(tree, "pids.max")?;
    let text = tree.read("io.stat")?.unwrap_or_default();
    stats.block_io = text.lines().flat_map(block_io).collect();
    hugetlb(tree, &mut stats)?;
    let text = tree.read("rdma.current")?.unwrap_or_default();
    stats.rdma = text.lines().filter_map(Rdma::parse).collect();
    stats.pressure = Pressure::read(&tree.directory);
    Ok(stats)
}

fn number(tree: &Tree, file: &str) -> Result<u64> {
    Ok(tree.read(file)?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// `max`, and a controller that is off, are no limit.
fn limit(tree: &Tree, file: &str) -> Result<u64> {
    Ok(tree.read(file)?.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX))
}

fn flat(tree: &Tree, file: &str) -> Result<Flat> {
    Ok(Flat::parse(&tree.read(file)?.unwrap_or_default()))
}

fn cpu(tree: &Tree, stats: &mut Stats) -> Result<()> {
    let stat = flat(tree, "cpu.stat")?;
    let cpu = &mut stats.cpu;
    cpu.usage = stat.get("usage_usec") * NANOSECONDS;
    cpu.user = stat.get("user_usec") * NANOSECONDS;
    cpu.system = stat.get("system_usec") * NANOSECONDS;
    cpu.periods = stat.get("nr_periods");
    cpu.throttled_periods = stat.get("nr_throttled");
    cpu.throttled_time = stat.get("throttled_usec") * NANOSECONDS;
    cpu.bursts = stat.get("nr_bursts");
    cpu.burst_time = stat.get("burst_usec") * NANOSECONDS;
    Ok(())
}

fn memory(tree: &Tree, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    memory.usage = number(tree, "memory.current")?;
    memory.max_usage = number(tree, "memory.peak")?;
    memory.limit = limit(tree, "memory.max")?;
    memory.swap_usage = number(tree, "memory.swap.current")?;
    memory.swap_limit = limit(tree, "memory.swap.max")?;
    memory.stat = flat(tree, "memory.stat")?;
    memory.events = flat(tree, "memory.events")?;
    memory.failures = memory.events.get("max");
    Ok(())
}

/// `8:0 rbytes=4096 wbytes=0 …`
fn block_io(line: &str) -> Vec<BlockIoEntry> {
    let mut fields = line.split_whitespace();
    let device = fields.next().and_then(|device| {
        let (major, minor) = device.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    let Some((major, minor)) = device else { return Vec::new() };
    let entries = fields.filter_map(|field| {
        let (key, value) = field.split_once('=')?;
        let (operation, value) = (key.to_owned(), value.parse().ok()?);
        Some(BlockIoEntry { file: "io.stat", major, minor, operation, value })
    });
    entries.collect()
}

fn hugetlb(tree: &Tree, stats: &mut Stats) -> Result<()> {
    let Ok(files) = fs::read_dir(&tree.directory) else { return Ok(()) };
    for file in files.flatten() {
        let name = file.file_name();
        let Some(size) = name.to_str().and_then(hugetlb_size) else { continue };
        stats.hugetlb.push(Hugetlb {
            page_size: size.to_owned(),
            usage: number(tree, &format!("hugetlb.{size}.current"))?,
            max_usage: 0,
            limit: limit(tree, &format!("hugetlb.{size}.max"))?,
            failures: flat(tree, &format!("hugetlb.{size}.events"))?.get("max"),
        });
    }
    Ok(())
}

fn hugetlb_size(file: &str) -> Option<&str> {
    file.strip_prefix("hugetlb.")?.strip_suffix(".current").filter(|size| !size.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_io_lines() {
        let entries = block_io("254:0 rbytes=4096 wios=2 cost.usage=x");
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].major, entries[0].minor, entries[0].value), (254, 0, 4096));
        assert_eq!(entries[1].operation, "wios");
        assert!(block_io("(unknown)").is_empty());
    }

    #[test]
    fn huge_page_files() {
        assert_eq!(hugetlb_size("hugetlb.2MB.current"), Some("2MB"));
        assert_eq!(hugetlb_size("hugetlb.2MB.rsvd.current"), None);
    }
}
