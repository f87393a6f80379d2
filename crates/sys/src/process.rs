//! What a process sets about itself before it becomes another program.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// `KEYCTL_JOIN_SESSION_KEYRING` of `keyctl(2)`.
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// The highest signal number of Linux.
const LAST_SIGNAL: libc::c_int = 64;

/// Makes a new session keyring called `name` the caller's, so that it shares no key with the host
/// (`keyctl_join_session_keyring(3)`).
///
/// # Errors
/// Those of `keyctl(2)`: `ENOSYS` without keyrings, `EDQUOT` when the user has too many keys.
pub fn join_session_keyring(name: &CStr) -> io::Result<()> {
    // SAFETY: the kernel reads the string, which ends in a zero and outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives each signal its default action and unblocks all: what was ignored or blocked would be so
/// in the next program too, `SIGPIPE` in every child of a Rust program.
pub fn restore_signals() {
    // A sigaction of the kernel's with SIG_DFL, no flags and an empty mask. Not by the C library,
    // which keeps two signals to itself that a parent may have left ignored.
    let default = [0_u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: the kernel reads a sigaction of four words, of which the mask has eight bytes.
        // What is set runs no code of ours. SIGKILL and SIGSTOP fail without an effect.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: a sigset_t is plain data that sigemptyset fills, and sigprocmask reads it.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Gives `fds`, in their order, the numbers from 0 up, and lets the next program have them. What
/// was open there is replaced. For a child that is about to become a program.
///
/// # Errors
/// Those of `fcntl(2)` and `dup2(2)`.
pub fn place_fds(fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    // First out of the way of the numbers that are to be given.
    let away: Vec<OwnedFd> = fds
        .iter()
        .map(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, fds.len() as i32)?))
        .collect::<io::Result<_>>()?;
    for (number, fd) in away.iter().enumerate() {
        // SAFETY: the call takes integers. Whoever owned what is replaced is code of the parent's,
        // which doesn't run in this process any more.
        if unsafe { libc::dup2(fd.as_raw_fd(), number as libc::c_int) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Marks each descriptor from `first` up close-on-exec (`close_range(2)`).
///
/// # Errors
/// Those of `close_range(2)`; `EINVAL` before Linux 5.11.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed now: every owner keeps its descriptor.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the execution domain, the `persona` of `personality(2)`.
///
/// # Errors
/// Those of `personality(2)`.
pub fn set_personality(persona: u32) -> io::Result<()> {
    // SAFETY: the call takes an integer and changes how later system calls behave, none of which
    // the memory safety of this program rests on (it has no 32-bit or legacy layout to rely on).
    if unsafe { libc::personality(persona.into()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
