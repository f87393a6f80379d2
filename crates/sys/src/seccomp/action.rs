//! What a filter answers.

use berth_types::{Error, Result};

// linux/seccomp.h
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

/// The greatest error number that the kernel returns (`MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;

/// The answer to one system call, as the kernel encodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Action(pub(super) u32);

impl Action {
    pub(super) const KILL_PROCESS: Self = Self(KILL_PROCESS);

    /// The answer that an unknown system call gets from a kernel without it.
    pub(super) const NO_SUCH_CALL: Self = Self(ERRNO | libc::ENOSYS as u32);

    /// Reads `SCMP_ACT_…` and the number that some of them carry.
    pub(super) fn parse(name: &str, number: Option<u32>) -> Result<Self> {
        let number = number.unwrap_or(libc::EPERM as u32);
        Ok(Self(match name {
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
            "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
            "SCMP_ACT_TRAP" => TRAP,
            "SCMP_ACT_ERRNO" if number <= MAX_ERRNO => ERRNO | number,
            "SCMP_ACT_TRACE" if number <= u32::from(u16::MAX) => TRACE | number,
            "SCMP_ACT_LOG" => LOG,
            "SCMP_ACT_NOTIFY" => NOTIFY,
            "SCMP_ACT_ALLOW" => ALLOW,
            "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE" => {
                return Err(Error::invalid_argument(format!(
                    "seccomp action {name} with the number {number}: it is too great"
                )));
            }
            _ => {
                return Err(Error::invalid_argument(format!(
                    "seccomp action {name:?} is unknown: use one of SCMP_ACT_ALLOW, ERRNO, KILL, \
                     KILL_PROCESS, KILL_THREAD, LOG, NOTIFY, TRACE, TRAP"
                )));
            }
        }))
    }

    /// Whether the call is refused, as opposed to done or handed to somebody.
    pub(super) fn refuses(self) -> bool {
        !matches!(self.0 & 0xffff_0000, ALLOW | LOG | TRACE | NOTIFY)
    }

    pub(super) fn notifies(self) -> bool {
        self.0 == NOTIFY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ride_along() {
        assert_eq!(Action::parse("SCMP_ACT_ERRNO", None).unwrap(), Action(0x0005_0001));
        assert_eq!(Action::parse("SCMP_ACT_TRACE", Some(7)).unwrap(), Action(0x7ff0_0007));
        assert_eq!(Action::parse("SCMP_ACT_KILL", Some(7)).unwrap(), Action(0));
        assert!(Action::parse("SCMP_ACT_ERRNO", Some(4096)).is_err());
        assert!(Action::parse("SCMP_ACT_MAYBE", None).is_err());
    }

    #[test]
    fn refusals() {
        let refuses = |name| Action::parse(name, None).unwrap().refuses();
        assert!(refuses("SCMP_ACT_ERRNO") && refuses("SCMP_ACT_KILL_PROCESS"));
        assert!(!refuses("SCMP_ACT_LOG") && !refuses("SCMP_ACT_NOTIFY"));
    }
}
