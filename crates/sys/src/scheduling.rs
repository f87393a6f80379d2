//! Which processor time, disk time and memory nodes the calling process gets.

use std::io;

use rustix::thread::{CpuSet, sched_setaffinity};

/// A scheduling policy with its parameters, as `sched_setattr(2)` has them. Times are in
/// nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    /// `SCHED_…`, see [`policy`].
    pub policy: u32,
    /// `SCHED_FLAG_…`, see [`flag`].
    pub flags: u64,
    /// −20 to 19, for the policies of ordinary programs.
    pub nice: i32,
    /// 1 to 99, for the real-time policies.
    pub priority: u32,
    /// For `SCHED_DEADLINE`.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`.
    pub period: u64,
}

/// The number of the policy called `name` (`SCHED_OTHER`).
pub fn policy(name: &str) -> Option<u32> {
    Some(match name {
        "SCHED_OTHER" => libc::SCHED_OTHER,
        "SCHED_FIFO" => libc::SCHED_FIFO,
        "SCHED_RR" => libc::SCHED_RR,
        "SCHED_BATCH" => libc::SCHED_BATCH,
        // Reserved, and refused by the kernel.
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => libc::SCHED_IDLE,
        "SCHED_DEADLINE" => libc::SCHED_DEADLINE,
        _ => return None,
    } as u32)
}

/// The bit of the flag called `name` (`SCHED_FLAG_RESET_ON_FORK`).
pub fn flag(name: &str) -> Option<u64> {
    Some(match name {
        "SCHED_FLAG_RESET_ON_FORK" => 0x01,
        "SCHED_FLAG_RECLAIM" => 0x02,
        "SCHED_FLAG_DL_OVERRUN" => 0x04,
        "SCHED_FLAG_KEEP_POLICY" => 0x08,
        "SCHED_FLAG_KEEP_PARAMS" => 0x10,
        "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
        "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
        _ => return None,
    })
}

impl Scheduler {
    /// Makes it the caller's.
    ///
    /// # Errors
    /// Those of `sched_setattr(2)`: `EINVAL` for a combination that can't be, `EPERM` without
    /// `CAP_SYS_NICE` where that is needed.
    pub fn apply(&self) -> io::Result<()> {
        let attr = libc::sched_attr {
            size: size_of::<libc::sched_attr>() as u32,
            sched_policy: self.policy,
            sched_flags: self.flags,
            sched_nice: self.nice,
            sched_priority: self.priority,
            sched_runtime: self.runtime,
            sched_deadline: self.deadline,
            sched_period: self.period,
        };
        // SAFETY: the kernel reads a sched_attr of the size that it names, during the call only.
        let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Sets the caller's class (1 real time, 2 best effort, 3 idle) and level (0 to 7) of disk time
/// (`ioprio_set(2)`).
///
/// # Errors
/// Those of `ioprio_set(2)`.
pub fn set_io_priority(class: u8, level: u8) -> io::Result<()> {
    /// `IOPRIO_WHO_PROCESS`: with 0 for the process, the caller.
    const PROCESS: i32 = 1;
    let priority = i32::from(class) << 13 | i32::from(level);
    // SAFETY: the call takes integers only.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, priority) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the caller run on `processors` only.
///
/// # Errors
/// Those of `sched_setaffinity(2)`: `EINVAL` when none of them is there, or is the caller's to
/// use.
pub fn set_affinity(processors: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for processor in processors {
        if *processor >= CpuSet::MAX_CPU {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        set.set(*processor);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// The most memory nodes that a policy names, as the kernel is built for at most.
pub const NODES_MAX: usize = 1024;

/// The number of the memory policy called `name` (`MPOL_BIND`).
pub fn memory_policy(name: &str) -> Option<i32> {
    const NAMES: [&str; 7] = [
        "MPOL_DEFAULT",
        "MPOL_PREFERRED",
        "MPOL_BIND",
        "MPOL_INTERLEAVE",
        "MPOL_LOCAL",
        "MPOL_PREFERRED_MANY",
        "MPOL_WEIGHTED_INTERLEAVE",
    ];
    NAMES.iter().position(|known| *known == name).map(|number| number as i32)
}

/// The bit of the memory policy's flag called `name` (`MPOL_F_STATIC_NODES`).
pub fn memory_policy_flag(name: &str) -> Option<i32> {
    Some(match name {
        "MPOL_F_STATIC_NODES" => 1 << 15,
        "MPOL_F_RELATIVE_NODES" => 1 << 14,
        "MPOL_F_NUMA_BALANCING" => 1 << 13,
        _ => return None,
    })
}

/// Sets from which of `nodes` the caller gets memory (`set_mempolicy(2)`); `mode` is a policy with
/// its flags.
///
/// # Errors
/// Those of `set_mempolicy(2)`: `EINVAL` for nodes that aren't there or that the mode can't have.
pub fn set_memory_policy(mode: i32, nodes: &[usize]) -> io::Result<()> {
    let mut mask = [0_u64; NODES_MAX / 64];
    for node in nodes {
        let word = mask.get_mut(node / 64).ok_or(io::ErrorKind::InvalidInput)?;
        *word |= 1 << (node % 64);
    }
    // The kernel takes one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { NODES_MAX + 1 };
    // SAFETY: the kernel reads as many bits of the mask as there are, during the call only.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask.as_ptr(), bits) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
