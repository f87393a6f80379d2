//! Figures of a cgroup, in the units of the kernel unless said otherwise.

use std::collections::BTreeMap;

use super::{Pressure, Version};

/// What a cgroup has used and may use. `version` says by which names the kernel knows the keys of
/// the [`Flat`] tables: those of v1 (also for [`Version::Hybrid`]) or v2.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// V1 or V2.
    pub version: Version,
    /// Processor time.
    pub cpu: Cpu,
    /// Memory and swap.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block devices, a row for each file, device and operation.
    pub block_io: Vec<BlockIoEntry>,
    /// Huge pages, a row for each size.
    pub hugetlb: Vec<Hugetlb>,
    /// RDMA devices.
    pub rdma: Vec<Rdma>,
    /// Waiting (v2 only).
    pub pressure: Pressure,
}

impl Stats {
    /// None yet, of a cgroup of `version`.
    pub fn of(version: Version) -> Self {
        Self {
            version,
            cpu: Cpu::default(),
            memory: Memory::default(),
            pids: Pids::default(),
            block_io: Vec::new(),
            hugetlb: Vec::new(),
            rdma: Vec::new(),
            pressure: Pressure::default(),
        }
    }
}

/// Processor time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// In all.
    pub usage: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// On each processor (v1 only).
    pub per_cpu: Vec<u64>,
    /// Periods of the quota that passed.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// For how long processes waited for the next period.
    pub throttled_time: u64,
    /// Periods in which more than the quota was used (v2 only).
    pub bursts: u64,
    /// For how long that went on (v2 only).
    pub burst_time: u64,
}

/// Memory in bytes. A limit of `u64::MAX` is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In use, page cache included.
    pub usage: u64,
    /// The most that was in use.
    pub max_usage: u64,
    /// The limit.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// Swap in use on v2; memory and swap together on v1.
    pub swap_usage: u64,
    /// The most of it (v1 only).
    pub swap_max_usage: u64,
    /// Its limit.
    pub swap_limit: u64,
    /// How often that limit was hit (v1 only).
    pub swap_failures: u64,
    /// Kernel memory, and its limit and failures (v1 only).
    pub kernel: [u64; 3],
    /// Buffers of TCP, their limit and failures (v1 only).
    pub kernel_tcp: [u64; 3],
    /// All of `memory.stat`.
    pub stat: Flat,
    /// `memory.events` on v2; `memory.oom_control` on v1.
    pub events: Flat,
}

/// Tasks (processes and threads).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    /// How many there are. Where v1 has no `pids` directory for want of a limit: processes.
    pub current: u64,
    /// The limit; `u64::MAX` is none.
    pub limit: u64,
}

/// One figure of one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIoEntry {
    /// The file that it stands in, without `blkio.` on v1; `io.stat` on v2.
    pub file: &'static str,
    /// The device.
    pub major: u64,
    /// The device.
    pub minor: u64,
    /// The operation (`Read`, `Total`) on v1, the key (`rbytes`, `wios`) on v2.
    pub operation: String,
    /// The figure.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hugetlb {
    /// As the kernel writes it: `2MB`.
    pub page_size: String,
    /// In use.
    pub usage: u64,
    /// The most that was in use (v1 only).
    pub max_usage: u64,
    /// The limit (v2 only); `u64::MAX` is none.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Handles and objects of one RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rdma {
    /// The device.
    pub device: String,
    /// Handles in use.
    pub handles: u64,
    /// Objects in use.
    pub objects: u64,
}

impl Rdma {
    /// `mlx4_0 hca_handle=2 hca_object=2000`
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let mut rdma = Self { device: fields.next()?.to_owned(), ..Self::default() };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            match key {
                "hca_handle" => rdma.handles = value.parse().ok()?,
                "hca_object" => rdma.objects = value.parse().ok()?,
                _ => {}
            }
        }
        Some(rdma)
    }
}

/// A file of lines with a name and a number each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flat(BTreeMap<String, u64>);

impl Flat {
    /// Reads such a text; other lines are skipped.
    pub fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        });
        Self(pairs.collect())
    }

    /// The number under `name`, zero where there is none.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_files() {
        let flat = Flat::parse("cache 4096\nrss 12\nodd\nbig 18446744073709551615\n");
        assert_eq!(flat.get("cache"), 4096);
        assert_eq!(flat.get("big"), u64::MAX);
        assert_eq!(flat.get("odd"), 0);
        assert_eq!(flat.iter().count(), 3);
    }
}
