//! Whether the first process of a container is still there: a number alone may have been given to
//! another process since.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use berth_types::{Error, Result, ResultExt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::unix::pipe;

/// A process that is there.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) pidfd: OwnedFd,
}

impl Life {
    /// The process `pid` that started at `start_time`; `None` when it has ended, be it waited for
    /// or not.
    pub(crate) fn find(pid: i32, start_time: u64) -> Option<Self> {
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // In this order: what the descriptor refers to can't change any more.
        let same = self::start_time(pid).is_ok_and(|time| time == start_time);
        let ended = berth_sys::pidfd::has_ended(pidfd.as_fd()).unwrap_or(true);
        (same && !ended).then_some(Self { pidfd })
    }
}

/// Waits until the process of `pidfd` has ended, be it waited for or not.
///
/// # Errors
/// When it can't be watched.
pub(crate) async fn ended(pidfd: &OwnedFd) -> Result<()> {
    let what = || "watch a process";
    let pidfd = pidfd.try_clone().context(what)?;
    // Like a pipe with something in it, a pidfd is readable from the end of its process on.
    pipe::Receiver::from_owned_fd_unchecked(pidfd).context(what)?.readable().await.context(what)
}

/// When process `pid` started, in ticks since the machine's boot (`proc_pid_stat(5)`, field 22).
///
/// # Errors
/// Aborted when there is no such process.
pub(crate) fn start_time(pid: i32) -> Result<u64> {
    let gone = || Error::aborted(format!("process {pid} of the container is gone"));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|_| gone())?;
    // The name before may have blanks and parentheses in it.
    let (_, after_name) = stat.rsplit_once(')').ok_or_else(gone)?;
    after_name.split_whitespace().nth(19).and_then(|time| time.parse().ok()).ok_or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let pid = std::process::id() as i32;
        let time = start_time(pid).unwrap();
        assert!(Life::find(pid, time).is_some());
        assert!(Life::find(pid, time + 1).is_none());
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let (pid, time) = (child.id() as i32, start_time(child.id() as i32).unwrap());
        while Life::find(pid, time).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
