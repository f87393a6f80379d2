//! Filters of system calls: an OCI profile compiled to a program of the kernel's classic BPF, and
//! installed (seccomp(2), `Documentation/userspace-api/seccomp_filter.rst`).
//!
//! How a profile is read:
//!
//! - A rule without arguments decides for its system call, whatever other rules there are for it.
//!   Among rules with arguments the first that matches decides.
//! - All arguments of a rule must match. Where one argument is compared twice, though, each
//!   comparison is a rule of its own: that is how the other runtimes read it, and profiles are
//!   written for them.
//! - Names that this machine's tables lack are skipped, and so are foreign architectures. The
//!   native one is always covered. A call by an architecture that the profile doesn't list ends
//!   the process.
//! - Where the default is to refuse, system calls newer than all that the profile names answer
//!   ENOSYS, so that programs fall back to older ones as they do on an older kernel.
//!
//! Dispatch is a binary search over ranges of numbers, which the kernel evaluates in advance for
//! calls that are always allowed.

mod abi;
mod action;
mod argument;
mod assembler;
mod compile;
#[cfg(test)]
mod interpreter;

use std::ffi::c_uint;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use assembler::Instruction;
pub use compile::compile;

const SET_MODE_FILTER: c_uint = 1;

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: u32,
}

/// `struct sock_fprog`
#[repr(C)]
struct Filter {
    len: u16,
    instructions: *const Instruction,
}

impl Program {
    /// Puts the filter in force for the calling thread and what it starts, for good. The thread
    /// must have CAP_SYS_ADMIN in its userns or `no_new_privs` set (EACCES). Returns the listener
    /// if the profile notifies. Allocates nothing, so that a fresh child can call it.
    pub fn install(&self) -> io::Result<Option<OwnedFd>> {
        let filter = Filter {
            // The compiler has checked the length.
            len: self.instructions.len() as u16,
            instructions: self.instructions.as_ptr(),
        };
        // SAFETY: the filter's pointer and length describe a live vector of the kernel's layout,
        // and the kernel copies it.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, self.flags, &raw const filter)
        };
        match result {
            // Some other thread could not be synchronised; the number is its id.
            id if id > 0 && self.flags & compile::NEW_LISTENER == 0 => {
                Err(io::Error::from_raw_os_error(libc::ESRCH))
            }
            // SAFETY: a fresh descriptor that nobody else knows.
            fd if self.flags & compile::NEW_LISTENER != 0 && fd >= 0 => {
                Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
            }
            0 => Ok(None),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How many instructions there are.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Never: the shortest program ends foreign architectures' calls.
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }
}
