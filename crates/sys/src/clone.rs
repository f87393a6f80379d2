//! Starting children with `clone3(2)`, which puts them into their namespaces and cgroup at birth.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};

use crate::namespace::Namespaces;

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The exit status of a child whose body panicked.
const PANICKED: i32 = 70;

/// What a child is born with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'fd> {
    /// The namespaces that are new.
    pub namespaces: Namespaces,
    /// The cgroup v2 directory that it starts in; else that of its parent.
    pub cgroup: Option<BorrowedFd<'fd>>,
    /// Its end sends no `SIGCHLD` and is seen only by a wait that names it (or has `__WALL`), so
    /// that a reaper of all children leaves it to its owner. An `execve` ends that.
    pub unseen: bool,
    /// It becomes a child of the caller's parent.
    pub sibling: bool,
}

/// A child that was started.
#[derive(Debug)]
pub struct Child {
    /// Its process id, in the caller's pidns.
    pub pid: i32,
    /// Refers to it for good, also after `pid` was given to another process.
    pub pidfd: OwnedFd,
}

/// The kernel's `struct clone_args` up to the member `cgroup` (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Starts a child that runs `body` on a copy of the caller's memory and ends with the status that
/// it returns. Handlers of signals are reset in it.
///
/// The child must not touch what it shares with the parent through descriptors, an epoll instance
/// above all, and it never returns into the caller's code: destructors of the caller's frames
/// don't run in it.
///
/// # Errors
/// `EBUSY` when the process has a second thread: the child would own a copy of the locks that
/// thread held, the allocator's among them, with nobody to release them. Else those of `clone(2)`.
pub fn spawn(options: Options<'_>, body: impl FnOnce() -> i32) -> io::Result<Child> {
    if !single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: CLONE_PIDFD | CLONE_CLEAR_SIGHAND | options.namespaces.bits() as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: if options.unseen || options.sibling { 0 } else { libc::SIGCHLD as u64 },
        ..CloneArgs::default()
    };
    if options.sibling {
        args.flags |= CLONE_PARENT;
    }
    if let Some(cgroup) = options.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args of the size given, and `pidfd` outlives the call. There
    // is no CLONE_VM and no new stack: the child continues on a private copy of this stack, as
    // after fork(2). The process has one thread (checked above), so no lock of the allocator or of
    // the standard library can be held by anyone else, and the child may use all of Rust,
    // including the heap.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, mem::size_of::<CloneArgs>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => run(body),
        pid => {
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so the kernel stored a descriptor that
            // nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: pid as i32, pidfd })
        }
    }
}

/// The child's side: runs `body` and ends without unwinding into the copy of the parent's frames.
fn run(body: impl FnOnce() -> i32) -> ! {
    let status = panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED);
    // SAFETY: _exit takes an integer and runs no exit handler, which belong to the parent.
    unsafe { libc::_exit(status) }
}

/// Whether the calling thread is the only one. A directory has one link for each subdirectory and
/// two of its own, and `/proc/self/task` has a subdirectory for each thread.
fn single_threaded() -> io::Result<bool> {
    Ok(rustix::fs::stat("/proc/self/task")?.st_nlink == 3)
}
