//! A cgroup's figures as containerd's metric messages, of v1 or v2.

use berth_proto::io::containerd::cgroups::{v1, v2};
use berth_sys::cgroup::{Stall, Stalls, Stats, Version};
use prost::{Message, Name};
use prost_types::Any;

/// Encodes `stats` by the version of the hierarchy that they come from.
pub(super) fn encode(stats: &Stats) -> Any {
    match stats.version {
        Version::V2 => any(&of_v2(stats)),
        Version::V1 | Version::Hybrid => any(&of_v1(stats)),
    }
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

fn of_v1(stats: &Stats) -> v1::Metrics {
    let stat = |name: &str| stats.memory.events.get(name);
    v1::Metrics {
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|row| v1::HugetlbStat {
                usage: row.usage,
                max: row.max_usage,
                failcnt: row.failures,
                pagesize: row.page_size.clone(),
            })
            .collect(),
        pids: Some(v1::PidsStat { current: stats.pids.current, limit: limit(stats.pids.limit) }),
        cpu: Some(cpu_v1(stats)),
        memory: Some(memory_v1(stats)),
        blkio: Some(block_io_v1(stats)),
        rdma: Some(v1::RdmaStat {
            current: stats
                .rdma
                .iter()
                .map(|row| v1::RdmaEntry {
                    device: row.device.clone(),
                    hca_handles: row.handles as u32,
                    hca_objects: row.objects as u32,
                })
                .collect(),
            limit: Vec::new(),
        }),
        memory_oom_control: Some(v1::MemoryOomControl {
            oom_kill_disable: stat("oom_kill_disable"),
            under_oom: stat("under_oom"),
            oom_kill: stat("oom_kill"),
        }),
        ..Default::default()
    }
}

fn cpu_v1(stats: &Stats) -> v1::CpuStat {
    let cpu = &stats.cpu;
    v1::CpuStat {
        usage: Some(v1::CpuUsage {
            total: cpu.usage,
            kernel: cpu.system,
            user: cpu.user,
            per_cpu: cpu.per_cpu.clone(),
        }),
        throttling: Some(v1::Throttle {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_time,
        }),
    }
}

fn memory_v1(stats: &Stats) -> v1::MemoryStat {
    let memory = &stats.memory;
    let stat = |name: &str| memory.stat.get(name);
    let entry = |[usage, limit, failcnt]: [u64; 3], max| {
        Some(v1::MemoryEntry { limit, usage, max, failcnt })
    };
    v1::MemoryStat {
        cache: stat("cache"),
        rss: stat("rss"),
        rss_huge: stat("rss_huge"),
        mapped_file: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        pg_pg_in: stat("pgpgin"),
        pg_pg_out: stat("pgpgout"),
        pg_fault: stat("pgfault"),
        pg_maj_fault: stat("pgmajfault"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchical_memory_limit: stat("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat("hierarchical_memsw_limit"),
        total_cache: stat("total_cache"),
        total_rss: stat("total_rss"),
        total_rss_huge: stat("total_rss_huge"),
        total_mapped_file: stat("total_mapped_file"),
        total_dirty: stat("total_dirty"),
        total_writeback: stat("total_writeback"),
        total_pg_pg_in: stat("total_pgpgin"),
        total_pg_pg_out: stat("total_pgpgout"),
        total_pg_fault: stat("total_pgfault"),
        total_pg_maj_fault: stat("total_pgmajfault"),
        total_inactive_anon: stat("total_inactive_anon"),
        total_active_anon: stat("total_active_anon"),
        total_inactive_file: stat("total_inactive_file"),
        total_active_file: stat("total_active_file"),
        total_unevictable: stat("total_unevictable"),
        usage: entry([memory.usage, memory.limit, memory.failures], memory.max_usage),
        swap: entry(
            [memory.swap_usage, memory.swap_limit, memory.swap_failures],
            memory.swap_max_usage,
        ),
        kernel: entry(memory.kernel, 0),
        kernel_tcp: entry(memory.kernel_tcp, 0),
    }
}

fn block_io_v1(stats: &Stats) -> v1::BlkIoStat {
    let mut message = v1::BlkIoStat::default();
    for row in &stats.block_io {
        let list = match row.file {
            "io_service_bytes_recursive" => &mut message.io_service_bytes_recursive,
            "io_serviced_recursive" => &mut message.io_serviced_recursive,
            "io_queued_recursive" => &mut message.io_queued_recursive,
            "io_service_time_recursive" => &mut message.io_service_time_recursive,
            "io_wait_time_recursive" => &mut message.io_wait_time_recursive,
            "io_merged_recursive" => &mut message.io_merged_recursive,
            _ => continue,
        };
        list.push(v1::BlkIoEntry {
            op: row.operation.clone(),
            device: String::new(),
            major: row.major,
            minor: row.minor,
            value: row.value,
        });
    }
    message
}

fn of_v2(stats: &Stats) -> v2::Metrics {
    let events = &stats.memory.events;
    v2::Metrics {
        pids: Some(v2::PidsStat { current: stats.pids.current, limit: limit(stats.pids.limit) }),
        cpu: Some(v2::CpuStat {
            usage_usec: stats.cpu.usage / 1000,
            user_usec: stats.cpu.user / 1000,
            system_usec: stats.cpu.system / 1000,
            nr_periods: stats.cpu.periods,
            nr_throttled: stats.cpu.throttled_periods,
            throttled_usec: stats.cpu.throttled_time / 1000,
            psi: psi(stats.pressure.cpu.as_ref()),
            nr_bursts: stats.cpu.bursts,
            burst_usec: stats.cpu.burst_time / 1000,
        }),
        memory: Some(memory_v2(stats)),
        rdma: Some(v2::RdmaStat {
            current: stats
                .rdma
                .iter()
                .map(|row| v2::RdmaEntry {
                    device: row.device.clone(),
                    hca_handles: row.handles as u32,
                    hca_objects: row.objects as u32,
                })
                .collect(),
            limit: Vec::new(),
        }),
        io: Some(io_v2(stats)),
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|row| v2::HugeTlbStat {
                current: row.usage,
                max: row.limit,
                pagesize: row.page_size.clone(),
                failcnt: row.failures,
            })
            .collect(),
        memory_events: Some(v2::MemoryEvents {
            low: events.get("low"),
            high: events.get("high"),
            max: events.get("max"),
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
            oom_group_kill: events.get("oom_group_kill"),
        }),
        network: Vec::new(),
    }
}

fn memory_v2(stats: &Stats) -> v2::MemoryStat {
    let memory = &stats.memory;
    let stat = |name: &str| memory.stat.get(name);
    v2::MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        workingset_refault: stat("workingset_refault_anon") + stat("workingset_refault_file"),
        workingset_activate: stat("workingset_activate_anon") + stat("workingset_activate_file"),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        usage: memory.usage,
        usage_limit: memory.limit,
        swap_usage: memory.swap_usage,
        swap_limit: memory.swap_limit,
        max_usage: memory.max_usage,
        psi: psi(stats.pressure.memory.as_ref()),
        ..Default::default()
    }
}

fn psi(stalls: Option<&Stalls>) -> Option<v2::PsiStats> {
    let data = |stall: Stall| v2::PsiData {
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
        total: stall.total,
    };
    let Stalls { some, full } = stalls?;
    Some(v2::PsiStats { some: some.map(data), full: full.map(data) })
}

/// One row for each device, of the figures that are rows of their own.
fn io_v2(stats: &Stats) -> v2::IoStat {
    let mut usage: Vec<v2::IoEntry> = Vec::new();
    for row in &stats.block_io {
        let device = (row.major, row.minor);
        let at = usage.iter().position(|entry| (entry.major, entry.minor) == device);
        let at = at.unwrap_or_else(|| {
            usage.push(v2::IoEntry { major: row.major, minor: row.minor, ..Default::default() });
            usage.len() - 1
        });
        match &*row.operation {
            "rbytes" => usage[at].rbytes = row.value,
            "wbytes" => usage[at].wbytes = row.value,
            "rios" => usage[at].rios = row.value,
            "wios" => usage[at].wios = row.value,
            _ => {}
        }
    }
    v2::IoStat { usage, psi: psi(stats.pressure.io.as_ref()) }
}

/// containerd says 0 where there is no limit to the number of processes.
fn limit(limit: u64) -> u64 {
    if limit == u64::MAX { 0 } else { limit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_sys::cgroup::Pressure;

    #[test]
    fn figures_of_v2_arrive_where_clients_look_for_them() {
        let stall = |total| Some(Stall { avg10: 1.5, total, ..Stall::default() });
        let stalls = |some, full| Some(Stalls { some: stall(some), full: stall(full) });
        let pressure = Pressure { cpu: stalls(1, 2), memory: stalls(3, 4), io: stalls(5, 6) };
        let stats = Stats { pressure, ..Stats::of(Version::V2) };
        let any = encode(&stats);
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = v2::Metrics::decode(&*any.value).unwrap();
        let totals = |psi: Option<v2::PsiStats>| {
            let v2::PsiStats { some, full } = psi.unwrap();
            assert_eq!(some.unwrap().avg10, 1.5);
            (some.unwrap().total, full.unwrap().total)
        };
        assert_eq!(totals(metrics.cpu.unwrap().psi), (1, 2));
        assert_eq!(totals(metrics.memory.unwrap().psi), (3, 4));
        assert_eq!(totals(metrics.io.unwrap().psi), (5, 6));
    }
}
