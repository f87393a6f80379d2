//! The kernel's resource controllers.

use std::fmt;

/// A resource controller, with one name for what v1 and v2 call differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// Processor time.
    Cpu,
    /// Processor time used (v1; part of `cpu` on v2).
    Cpuacct,
    /// Which processors and memory nodes.
    Cpuset,
    /// Memory and swap.
    Memory,
    /// Device access (v1; a BPF program on v2).
    Devices,
    /// Stopping processes (v1; part of every cgroup on v2).
    Freezer,
    /// Block devices: `blkio` on v1, `io` on v2.
    BlockIo,
    /// How many tasks.
    Pids,
    /// Huge pages.
    Hugetlb,
    /// Marks for traffic control (v1).
    NetCls,
    /// Priorities of interfaces (v1).
    NetPrio,
    /// RDMA handles and objects.
    Rdma,
}

impl Controller {
    /// The controller that a mount option or a line of `/proc/self/cgroup` names on v1.
    pub fn from_v1(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|controller| controller.v1_name() == name)
    }

    /// The controller that `cgroup.controllers` names on v2.
    pub fn from_v2(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|controller| controller.v2_name() == Some(name))
    }

    const ALL: [Self; 12] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Devices,
        Self::Freezer,
        Self::BlockIo,
        Self::Pids,
        Self::Hugetlb,
        Self::NetCls,
        Self::NetPrio,
        Self::Rdma,
    ];

    fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::BlockIo => "blkio",
            Self::Pids => "pids",
            Self::Hugetlb => "hugetlb",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::Rdma => "rdma",
        }
    }

    /// The name on v2; `None` for those that exist on v1 only.
    pub fn v2_name(self) -> Option<&'static str> {
        match self {
            Self::Cpuacct | Self::Devices | Self::Freezer | Self::NetCls | Self::NetPrio => None,
            Self::BlockIo => Some("io"),
            other => Some(other.v1_name()),
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.v1_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for controller in Controller::ALL {
            assert_eq!(Controller::from_v1(controller.v1_name()), Some(controller));
            if let Some(name) = controller.v2_name() {
                assert_eq!(Controller::from_v2(name), Some(controller));
            }
        }
        assert_eq!(Controller::from_v2("devices"), None);
    }
}
