//! Filters of system calls: an OCI profile compiled to a program of the kernel's classic BPF, and
//! installed (seccomp(2), `Documentation/userspace-api/seccomp_filter.rst`).
//!
//! How a profile is read:
//!
//! - Among a system call's rules with arguments the first that matches decides; where none does,
//!   its rule without arguments; where there is none, the default.
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
        match (result, self.flags & compile::NEW_LISTENER != 0) {
            (..0, _) => Err(io::Error::last_os_error()),
            // SAFETY: a fresh descriptor that nobody else knows.
            (fd, true) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })),
            (0, false) => Ok(None),
            // The id of a thread that could not be synchronised.
            (_, false) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// Whether some calls are answered by who holds the listener.
    pub fn notifies(&self) -> bool {
        self.flags & compile::NEW_LISTENER != 0
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

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    fn program(json: &str) -> Program {
        compile(&serde_json::from_str(json).unwrap()).unwrap()
    }

    /// In a thread of its own, which the filter ends with.
    fn under<T: Send + 'static>(program: Program, work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            assert!(program.install().unwrap().is_none());
            work()
        });
        thread.join().unwrap()
    }

    #[test]
    fn the_kernel_answers_as_compiled() {
        let program = program(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"],
                "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
                "syscalls":[
                {"names":["getppid"],"action":"SCMP_ACT_ERRNO","errnoRet":77},
                {"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":97,
                 "args":[{"index":0,"value":38,"op":"SCMP_CMP_EQ"}]},
                {"names":["personality"],"action":"SCMP_ACT_ERRNO","errnoRet":5,
                 "args":[{"index":0,"value":4294967296,"op":"SCMP_CMP_NE"}]}]}"#,
        );
        let (parent, alg, unix, persona) = under(program, || {
            let call = |number, argument: u64| {
                // SAFETY: these calls take numbers only.
                let result = unsafe { libc::syscall(number, argument, 1, 0) };
                if result < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
            };
            (
                call(libc::SYS_getppid, 0),
                call(libc::SYS_socket, 38),
                call(libc::SYS_socket, 1),
                call(libc::SYS_personality, 0xffff_ffff),
            )
        });
        assert_eq!((parent, alg, unix, persona), (77, 97, 0, 5));
    }

    #[test]
    fn a_killing_filter_kills() {
        let program = program(
            r#"{"defaultAction":"SCMP_ACT_ALLOW",
                "syscalls":[{"names":["chdir"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#,
        );
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "cd /; echo survived"]);
        // SAFETY: the closure makes two system calls and allocates nothing.
        unsafe {
            shell.pre_exec(move || {
                rustix::thread::set_no_new_privs(true)?;
                program.install().map(drop)
            });
        }
        assert_eq!(shell.status().unwrap().signal(), Some(libc::SIGSYS));
    }

    #[test]
    fn a_notifying_filter_has_a_listener() {
        let program = program(
            r#"{"defaultAction":"SCMP_ACT_ALLOW",
                "syscalls":[{"names":["swapoff"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        );
        let thread = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            program.install().unwrap().is_some()
        });
        assert!(thread.join().unwrap());
    }
}
