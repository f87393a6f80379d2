//! Signals and waiting by pidfd, which can't hit a process that inherited the number.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};

/// Sends signal number `signal` (0 sends none and only asks) to the process of `pidfd`.
///
/// # Errors
/// Those of `pidfd_send_signal(2)`: `ESRCH` when it ended and was waited for, `EINVAL` when there
/// is no such signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes integers and a null pointer for its optional siginfo.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for the child of `pidfd` to end and takes its status; `None` when another wait of this
/// process took it first.
///
/// # Errors
/// Those of `waitid(2)` but `ECHILD`.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<WaitIdStatus>> {
    loop {
        return match rustix::process::waitid(WaitId::PidFd(pidfd), any_exited()) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CHILD) => Ok(None),
            other => Ok(other?),
        };
    }
}

/// As [`wait`], without waiting: `None` also when the child has not ended.
///
/// # Errors
/// As [`wait`].
pub fn try_wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<WaitIdStatus>> {
    let options = any_exited() | WaitIdOptions::NOHANG;
    match rustix::process::waitid(WaitId::PidFd(pidfd), options) {
        Err(rustix::io::Errno::CHILD) => Ok(None),
        other => Ok(other?),
    }
}

/// Whether the process of `pidfd` has ended, be it waited for or not.
///
/// # Errors
/// Those of `poll(2)`.
pub fn has_ended(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&now)))? > 0)
}

/// Also children that send no `SIGCHLD` ([`Options::unseen`](crate::clone::Options::unseen)).
fn any_exited() -> WaitIdOptions {
    WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL as u32)
}
