//! What v1 counts.

use std::fs;

use berth_types::Result;

use super::Tree;
use crate::cgroup::stats::{BlockIoEntry, Flat, Hugetlb, Rdma, Stats};
use crate::cgroup::{Controller as C, Version};

/// A limit at or above this is none: the kernel says the largest multiple of a page.
const NO_LIMIT: u64 = i64::MAX as u64 - 0xffff;

const BLOCK_IO_FILES: [&str; 6] = [
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queued_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
];

/// The throttling layer counts where no scheduler does; the names are those under which its
/// figures are reported.
const THROTTLE_FILES: [(&str, &str); 2] = [
    ("throttle.io_service_bytes", "io_service_bytes_recursive"),
    ("throttle.io_serviced", "io_serviced_recursive"),
];

pub(super) fn stats(tree: &Tree) -> Result<Stats> {
    let mut stats = Stats::of(Version::V1);
    cpu(tree, &mut stats)?;
    memory(tree, &mut stats)?;
    pids(tree, &mut stats)?;
    block_io(tree, &mut stats)?;
    hugetlb(tree, &mut stats)?;
    rdma(tree, &mut stats)?;
    Ok(stats)
}

fn number(tree: &Tree, controller: C, file: &str) -> Result<u64> {
    let text = tree.read(controller, file)?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn flat(tree: &Tree, controller: C, file: &str) -> Result<Flat> {
    Ok(Flat::parse(&tree.read(controller, file)?.unwrap_or_default()))
}

fn cpu(tree: &Tree, stats: &mut Stats) -> Result<()> {
    let cpu = &mut stats.cpu;
    cpu.usage = number(tree, C::Cpuacct, "cpuacct.usage")?;
    cpu.user = number(tree, C::Cpuacct, "cpuacct.usage_user")?;
    cpu.system = number(tree, C::Cpuacct, "cpuacct.usage_sys")?;
    let each = tree.read(C::Cpuacct, "cpuacct.usage_percpu")?.unwrap_or_default();
    cpu.per_cpu = each.split_whitespace().filter_map(|value| value.parse().ok()).collect();
    let throttling = flat(tree, C::Cpu, "cpu.stat")?;
    cpu.periods = throttling.get("nr_periods");
    cpu.throttled_periods = throttling.get("nr_throttled");
    cpu.throttled_time = throttling.get("throttled_time");
    Ok(())
}

fn memory(tree: &Tree, stats: &mut Stats) -> Result<()> {
    let read = |file: &str| number(tree, C::Memory, file);
    let limit =
        |file: &str| read(file).map(|limit| if limit >= NO_LIMIT { u64::MAX } else { limit });
    let memory = &mut stats.memory;
    memory.usage = read("memory.usage_in_bytes")?;
    memory.max_usage = read("memory.max_usage_in_bytes")?;
    memory.limit = limit("memory.limit_in_bytes")?;
    memory.failures = read("memory.failcnt")?;
    memory.swap_usage = read("memory.memsw.usage_in_bytes")?;
    memory.swap_max_usage = read("memory.memsw.max_usage_in_bytes")?;
    memory.swap_limit = limit("memory.memsw.limit_in_bytes")?;
    memory.swap_failures = read("memory.memsw.failcnt")?;
    memory.kernel = [
        read("memory.kmem.usage_in_bytes")?,
        limit("memory.kmem.limit_in_bytes")?,
        read("memory.kmem.failcnt")?,
    ];
    memory.kernel_tcp = [
        read("memory.kmem.tcp.usage_in_bytes")?,
        limit("memory.kmem.tcp.limit_in_bytes")?,
        read("memory.kmem.tcp.failcnt")?,
    ];
    memory.stat = flat(tree, C::Memory, "memory.stat")?;
    memory.events = flat(tree, C::Memory, "memory.oom_control")?;
    Ok(())
}

fn pids(tree: &Tree, stats: &mut Stats) -> Result<()> {
    stats.pids.current = match tree.read(C::Pids, "pids.current")? {
        Some(current) => current.parse().unwrap_or(0),
        None => tree.pids()?.len() as u64,
    };
    let limit = tree.read(C::Pids, "pids.max")?;
    stats.pids.limit = limit.and_then(|limit| limit.parse().ok()).unwrap_or(u64::MAX);
    Ok(())
}

fn block_io(tree: &Tree, stats: &mut Stats) -> Result<()> {
    let scheduler = BLOCK_IO_FILES.map(|name| (format!("blkio.bfq.{name}"), name));
    let plain = BLOCK_IO_FILES.map(|name| (format!("blkio.{name}"), name));
    let throttle = THROTTLE_FILES.map(|(file, name)| (format!("blkio.{file}"), name));
    for group in [&scheduler[..], &plain[..], &throttle[..]] {
        for (file, name) in group {
            let text = tree.read(C::BlockIo, file)?.unwrap_or_default();
            stats.block_io.extend(text.lines().filter_map(|line| block_io_line(name, line)));
        }
        if !stats.block_io.is_empty() {
            break;
        }
    }
    Ok(())
}

/// `8:0 Read 4096`
fn block_io_line(file: &'static str, line: &str) -> Option<BlockIoEntry> {
    let mut fields = line.split_whitespace();
    let (major, minor) = fields.next()?.split_once(':')?;
    let operation = fields.next()?.to_owned();
    let value = fields.next()?.parse().ok()?;
    Some(BlockIoEntry {
        file,
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        operation,
        value,
    })
}

fn hugetlb(tree: &Tree, stats: &mut Stats) -> Result<()> {
    let Some(place) = tree.places.get(&C::Hugetlb) else { return Ok(()) };
    let Ok(files) = fs::read_dir(&place.directory) else { return Ok(()) };
    for file in files.flatten() {
        let name = file.file_name();
        let Some(size) = name.to_str().and_then(hugetlb_size) else { continue };
        let read = |what: &str| number(tree, C::Hugetlb, &format!("hugetlb.{size}.{what}"));
        stats.hugetlb.push(Hugetlb {
            page_size: size.to_owned(),
            usage: read("usage_in_bytes")?,
            max_usage: read("max_usage_in_bytes")?,
            limit: read("limit_in_bytes")?,
            failures: read("failcnt")?,
        });
    }
    Ok(())
}

fn hugetlb_size(file: &str) -> Option<&str> {
    file.strip_prefix("hugetlb.")?.strip_suffix(".usage_in_bytes").filter(|s| !s.contains('.'))
}

fn rdma(tree: &Tree, stats: &mut Stats) -> Result<()> {
    let text = tree.read(C::Rdma, "rdma.current")?.unwrap_or_default();
    stats.rdma = text.lines().filter_map(Rdma::parse).collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_io_lines() {
        let entry = block_io_line("io_serviced_recursive", "8:16 Write 7").unwrap();
        assert_eq!((entry.major, entry.minor, entry.value), (8, 16, 7));
        assert_eq!(entry.operation, "Write");
        assert_eq!(block_io_line("io_serviced_recursive", "Total 7"), None);
    }

    #[test]
    fn huge_page_files() {
        assert_eq!(hugetlb_size("hugetlb.2MB.usage_in_bytes"), Some("2MB"));
        assert_eq!(hugetlb_size("hugetlb.2MB.rsvd.usage_in_bytes"), None);
    }
}
