//! The ways into the kernel that one machine has, and their system call numbers.

use std::collections::HashMap;

/// `AUDIT_ARCH_…` of linux/audit.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    #[cfg(target_arch = "x86_64")]
    X8664,
    /// 64-bit calls with 32-bit pointers: the token of x86_64, and a bit in the number.
    #[cfg(target_arch = "x86_64")]
    X32,
    #[cfg(target_arch = "x86_64")]
    X86,
    #[cfg(target_arch = "aarch64")]
    Aarch64,
    #[cfg(target_arch = "aarch64")]
    Arm,
}

/// The bit in x32's numbers (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// x32 has numbers of its own for calls whose structures hold pointers
/// (`arch/x86/entry/syscalls/syscall_64.tbl`, from 512 on).
#[cfg(target_arch = "x86_64")]
const X32_OWN: [(&str, u32); 36] = [
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];

/// What the specification calls the architectures, after `SCMP_ARCH_`. Those that this machine
/// hasn't are no mistake: profiles are for many machines.
pub(super) const KNOWN: [&str; 24] = [
    "X86",
    "X86_64",
    "X32",
    "ARM",
    "AARCH64",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PPC",
    "PPC64",
    "PPC64LE",
    "S390",
    "S390X",
    "PARISC",
    "PARISC64",
    "RISCV64",
    "LOONGARCH64",
    "M68K",
    "SH",
    "SHEB",
    "NATIVE",
];

#[cfg(target_arch = "x86_64")]
impl Abi {
    pub(super) const NATIVE: Self = Self::X8664;

    /// The one that a profile names; `None` for another machine's.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "SCMP_ARCH_X86_64" => Some(Self::X8664),
            "SCMP_ARCH_X32" => Some(Self::X32),
            "SCMP_ARCH_X86" => Some(Self::X86),
            _ => None,
        }
    }

    /// What the kernel calls it.
    pub(super) fn token(self) -> u32 {
        match self {
            Self::X8664 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
        }
    }

    pub(super) fn has_64_bit_arguments(self) -> bool {
        self == Self::X8664
    }

    /// The numbers of those system calls that `wanted` has, with what it has for them.
    pub(super) fn select<T: Copy>(self, wanted: &HashMap<&str, T>) -> Vec<(u32, T)> {
        let find = |name: &str, id: i32| Some((id as u32, *wanted.get(name)?));
        match self {
            Self::X86 => {
                syscalls::x86::Sysno::iter().filter_map(|one| find(one.name(), one.id())).collect()
            }
            Self::X8664 => {
                let all = syscalls::x86_64::Sysno::iter();
                all.filter_map(|one| find(one.name(), one.id())).collect()
            }
            Self::X32 => {
                let own = X32_OWN.iter().filter_map(|(name, id)| find(name, *id as i32));
                let shared = syscalls::x86_64::Sysno::iter()
                    .filter(|one| X32_OWN.iter().all(|(name, _)| *name != one.name()))
                    .filter_map(|one| find(one.name(), one.id()));
                let mut all: Vec<_> =
                    shared.chain(own).map(|(number, value)| (number | X32_BIT, value)).collect();
                all.sort_by_key(|(number, _)| *number);
                all
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl Abi {
    pub(super) const NATIVE: Self = Self::Aarch64;

    /// The one that a profile names; `None` for another machine's.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "SCMP_ARCH_AARCH64" => Some(Self::Aarch64),
            "SCMP_ARCH_ARM" => Some(Self::Arm),
            _ => None,
        }
    }

    /// What the kernel calls it.
    pub(super) fn token(self) -> u32 {
        match self {
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    pub(super) fn has_64_bit_arguments(self) -> bool {
        self == Self::Aarch64
    }

    /// The numbers of those system calls that `wanted` has, with what it has for them.
    pub(super) fn select<T: Copy>(self, wanted: &HashMap<&str, T>) -> Vec<(u32, T)> {
        let find = |name: &str, id: i32| Some((id as u32, *wanted.get(name)?));
        match self {
            Self::Aarch64 => {
                let all = syscalls::aarch64::Sysno::iter();
                all.filter_map(|one| find(one.name(), one.id())).collect()
            }
            Self::Arm => {
                syscalls::arm::Sysno::iter().filter_map(|one| find(one.name(), one.id())).collect()
            }
        }
    }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_by_abi() {
        let wanted = HashMap::from([("read", 'r'), ("execve", 'e'), ("socketcall", 's')]);
        assert_eq!(Abi::X8664.select(&wanted), [(0, 'r'), (59, 'e')]);
        assert_eq!(Abi::X86.select(&wanted), [(3, 'r'), (11, 'e'), (102, 's')]);
        assert_eq!(Abi::X32.select(&wanted), [(X32_BIT, 'r'), (X32_BIT | 520, 'e')]);
    }

    #[test]
    fn every_number_of_x32s_own_is_a_known_call() {
        for (name, _) in X32_OWN {
            assert!(name.parse::<syscalls::x86_64::Sysno>().is_ok(), "{name}");
        }
    }
}
