//! Being the first process of a container for somebody else: starting the program, handing
//! signals on to it, waiting for orphans, and ending as it ends.
//!
//! It is the calling program that goes on running, with a copy of its memory that nobody in the
//! container may look into: no second program has to be in reach of the container.

use std::convert::Infallible;
use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use rustix::process::{DumpableBehavior, Pid, WaitOptions, WaitStatus};

/// What such a process is called in lists of processes.
const NAME: &CStr = c"init";

/// Signals that tell a process of its own faults: those of an init are not the program's.
const OWN: [c_int; 8] = [
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGCHLD,
];

/// Runs `program` in a child, in a process group of its own that has the terminal on standard
/// input, if there is one, and is that child's init. It never returns in the caller, which ends
/// with the child's status, or 128 and the number of the signal that ended it; nor in the child,
/// which ends with what `program` returns if it does. All descriptors but the child's are closed.
///
/// To be called by a process with one thread that came from [`crate::clone::spawn`]: nothing of
/// what it shares with its parent is of use to it any more.
///
/// # Errors
/// Those of `fork(2)`, and what a container's init must have can't be had.
pub fn run(program: impl FnOnce() -> c_int) -> io::Result<Infallible> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    block_all()?;
    // SAFETY: the caller has one thread, so that no lock is held by another that the child lacks.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            take_terminal();
            let status = program();
            // SAFETY: _exit takes an integer and runs no exit handler, which are the parent's.
            unsafe { libc::_exit(status) }
        }
        child => child,
    };
    let status = match become_plain() {
        Ok(()) => attend(child),
        Err(_) => {
            // Nothing may run beside descriptors of the host.
            // SAFETY: the call takes integers; the child has not been waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            1
        }
    };
    // SAFETY: as above.
    unsafe { libc::_exit(status) }
}

/// The child's own process group, in the foreground.
fn take_terminal() {
    // SAFETY: the calls take integers. SIGTTOU, which the second may raise, is blocked. Without a
    // terminal it fails, and there is nothing to take.
    unsafe {
        libc::setpgid(0, 0);
        libc::tcsetpgrp(0, libc::getpid());
    }
}

/// Leaves nothing of the caller's to be seen: descriptors and the command line.
fn become_plain() -> io::Result<()> {
    // SAFETY: the process runs no code from here on that uses a descriptor of those it had.
    if unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    rename();
    Ok(())
}

/// Takes another name, in place of the command line too. That it can't is no failure.
fn rename() {
    let _ = rustix::thread::set_name(NAME);
    let arguments = std::env::args_os().map(|argument| argument.len() + 1).sum::<usize>();
    if arguments <= NAME.to_bytes().len() {
        return;
    }
    // SAFETY: the pointer is set before `main` and never changed. The kernel puts the arguments of
    // a program one after the other, each with a zero at its end, from there on; they are writable
    // memory of the process, which has one thread and no reference to them: the standard library
    // hands out copies.
    unsafe {
        let place = program_invocation_name;
        ptr::write_bytes(place, 0, arguments);
        ptr::copy_nonoverlapping(NAME.as_ptr(), place, NAME.to_bytes().len());
    }
}

unsafe extern "C" {
    /// The first argument in its place, as the C library knows it.
    static program_invocation_name: *mut c_char;
}

/// Hands on signals and waits for children until `child` has ended; returns its status.
fn attend(child: c_int) -> c_int {
    loop {
        let signal = next_signal();
        if signal == libc::SIGCHLD {
            if let Some(status) = reap(child) {
                return status;
            }
        } else if !OWN.contains(&signal) {
            // SAFETY: the call takes integers; `child` has not been waited for.
            unsafe { libc::kill(child, signal) };
        }
    }
}

/// Waits for all that have ended; returns the status of `child` if it was among them.
fn reap(child: c_int) -> Option<c_int> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == Pid::from_raw(child)? {
            ended = Some(code(status));
        }
    }
    ended
}

fn code(status: WaitStatus) -> c_int {
    let signalled = status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or(signalled).unwrap_or(255)
}

fn all_signals() -> MaybeUninit<libc::sigset_t> {
    let mut all = MaybeUninit::uninit();
    // SAFETY: sigfillset initializes the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    all
}

/// Blocks every signal: they are taken one by one then, also those that an init would not get.
fn block_all() -> io::Result<()> {
    // SAFETY: the set is initialized, and the old one is not asked for.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, all_signals().as_ptr(), ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn next_signal() -> c_int {
    loop {
        // SAFETY: the set is initialized, and no details are asked for.
        let signal = unsafe { libc::sigwaitinfo(all_signals().as_ptr(), ptr::null_mut()) };
        if signal > 0 {
            return signal;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        let status = |line: &str| {
            #[expect(clippy::zombie_processes, reason = "it is waited for by its number")]
            let child = std::process::Command::new("/bin/sh").args(["-c", line]).spawn().unwrap();
            let pid = Pid::from_child(&child);
            rustix::process::waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap().1
        };
        assert_eq!(code(status("exit 3")), 3);
        assert_eq!(code(status("kill -9 $$")), 137);
    }
}
