//! Capabilities (`capabilities(7)`): their names, and setting all five sets of a process.

use std::io;
use std::ops::{BitAnd, BitOr, Not};

use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// The names, each at its number.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A set of capabilities, one bit for each number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// No capability.
    pub const NONE: Self = Self(0);
    /// `CAP_SYS_ADMIN`.
    pub const SYS_ADMIN: Self = Self(1 << 21);

    /// The capability called `name`, in any case; `None` when there is none of that name.
    pub fn named(name: &str) -> Option<Self> {
        let number = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        Some(Self(1 << number))
    }

    /// The names of the capabilities in this set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let named = NAMES.iter().enumerate();
        named.filter(move |(number, _)| self.0 & (1 << number) != 0).map(|(_, name)| *name)
    }

    /// The permitted set of the calling thread.
    ///
    /// # Errors
    /// Those of `capget(2)`.
    pub fn permitted() -> io::Result<Self> {
        Ok(Self(thread::capabilities(None)?.permitted.bits()))
    }
}

impl BitOr for Set {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Set {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Set {
    type Output = Self;

    fn not(self) -> Self {
        Self(!self.0)
    }
}

/// The three sets that `capset(2)` changes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// What the kernel checks.
    pub effective: Set,
    /// What may be made effective.
    pub permitted: Set,
    /// What the permitted set of a program with file capabilities may take over.
    pub inheritable: Set,
}

impl Sets {
    /// Makes these the calling thread's.
    ///
    /// # Errors
    /// `EPERM` for what the thread is not permitted.
    pub fn apply(self) -> io::Result<()> {
        let set = |set: Set| CapabilitySet::from_bits_retain(set.0);
        Ok(thread::set_capabilities(
            None,
            CapabilitySets {
                effective: set(self.effective),
                permitted: set(self.permitted),
                inheritable: set(self.inheritable),
            },
        )?)
    }
}

/// Leaves only `keep` in the calling thread's bounding set.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn bound(keep: Set) -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep.0 & (1 << number) != 0 {
            continue;
        }
        match thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the last that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Makes `ambient` the calling thread's ambient set, which a program without file capabilities
/// gets as its permitted set.
///
/// # Errors
/// `EPERM` for what is not both permitted and inheritable.
pub fn set_ambient(ambient: Set) -> io::Result<()> {
    thread::clear_ambient_capability_set()?;
    for number in (0..u64::BITS).filter(|number| ambient.0 & (1 << number) != 0) {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_their_numbers() {
        assert_eq!(Set::named("CAP_SYS_ADMIN"), Some(Set::SYS_ADMIN));
        assert_eq!(Set::named("cap_chown"), Some(Set(1)));
        assert_eq!(Set::named("CAP_CHECKPOINT_RESTORE"), Some(Set(1 << 40)));
        assert_eq!(Set::named("CAP_FLY"), None);
        assert_eq!(Set(0b11).names().collect::<Vec<_>>(), ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
    }
}
