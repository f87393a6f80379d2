//! The figures of a control group as the document that runc's clients read.

use berth_sys::cgroup::{BlockIoEntry, Memory, Stats};
use serde_json::{Map, Value, json};

/// The lists of block devices, and the kernel's files that they come from.
const BLOCK_IO: [(&str, &str); 6] = [
    ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
    ("ioServicedRecursive", "io_serviced_recursive"),
    ("ioQueueRecursive", "io_queued_recursive"),
    ("ioServiceTimeRecursive", "io_service_time_recursive"),
    ("ioWaitTimeRecursive", "io_wait_time_recursive"),
    ("ioMergedRecursive", "io_merged_recursive"),
];

/// What `events` prints as `data`.
pub(crate) fn document(stats: &Stats) -> Value {
    let hugetlb = stats.hugetlb.iter().map(|row| {
        let value = json!({ "usage": row.usage, "max": row.max_usage, "failcnt": row.failures });
        (row.page_size.clone(), value)
    });
    let block_io = BLOCK_IO.iter().map(|(name, file)| {
        let rows = stats.block_io.iter().filter(|row| row.file == *file);
        ((*name).to_owned(), rows.map(block_io_entry).collect())
    });
    let pids_limit = if stats.pids.limit == u64::MAX { 0 } else { stats.pids.limit };
    json!({
        "cpu": cpu(stats),
        "memory": memory(&stats.memory),
        "pids": { "current": stats.pids.current, "limit": pids_limit },
        "blkio": block_io.collect::<Map<_, _>>(),
        "hugetlb": hugetlb.collect::<Map<_, _>>(),
    })
}

fn cpu(stats: &Stats) -> Value {
    let cpu = &stats.cpu;
    json!({
        "usage": {
            "total": cpu.usage, "percpu": cpu.per_cpu, "kernel": cpu.system, "user": cpu.user,
        },
        "throttling": {
            "periods": cpu.periods,
            "throttledPeriods": cpu.throttled_periods,
            "throttledTime": cpu.throttled_time,
        },
    })
}

fn memory(memory: &Memory) -> Value {
    let entry = |[usage, limit, failures]: [u64; 3], max| json!({ "limit": limit, "usage": usage, "max": max, "failcnt": failures });
    let swap = [memory.swap_usage, memory.swap_limit, memory.swap_failures];
    let raw = memory.stat.iter().map(|(name, value)| (name.to_owned(), value.into()));
    json!({
        "cache": memory.stat.get("cache"),
        "usage": entry([memory.usage, memory.limit, memory.failures], memory.max_usage),
        "swap": entry(swap, memory.swap_max_usage),
        "kernel": entry(memory.kernel, 0),
        "kernelTCP": entry(memory.kernel_tcp, 0),
        "raw": raw.collect::<Map<_, _>>(),
    })
}

fn block_io_entry(row: &BlockIoEntry) -> Value {
    json!({ "major": row.major, "minor": row.minor, "op": row.operation, "value": row.value })
}
