//! Signals for every process of a container.

use std::os::fd::AsFd;

use berth_sys::cgroup::Cgroup;
use berth_sys::pidfd;
use berth_types::{Result, ResultExt};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

/// Sends signal number `signal` to every process in `cgroup`, frozen ones too if it is SIGKILL.
///
/// # Errors
/// InvalidArgument for a number that is no signal; when the control group can't be read.
pub fn signal_all(cgroup: &Cgroup, signal: i32) -> Result<()> {
    if signal == Signal::KILL.as_raw() {
        return cgroup.kill_all().map(drop);
    }
    for pid in cgroup.pids()? {
        let Some(pid) = Pid::from_raw(pid) else { continue };
        // A process that has ended since needs no signal.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        match pidfd::send_signal(pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            other => other.context(|| format!("send signal {signal} to process {pid:?}"))?,
        }
    }
    Ok(())
}
