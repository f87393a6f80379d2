//! The system call filter of a container that doesn't bring its own. In effect it is that of
//! containerd and Docker.

use super::allowed::{ALWAYS, BY_CAPABILITY, OF_ARCHITECTURE};
use super::{Argument, Seccomp, Syscall};

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
const EQUAL: &str = "SCMP_CMP_EQ";
const LESS: &str = "SCMP_CMP_LT";
const GREATER: &str = "SCMP_CMP_GT";
const MASKED_EQUAL: &str = "SCMP_CMP_MASKED_EQ";

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [&str; 2] = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];

const ENOSYS: u32 = 38;

/// Address families whose sockets are refused: the kernel's cryptography, which unprivileged
/// programs have no need of, and talk with the hypervisor, which knows no network namespaces.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// `CLONE_NEW…` of all kernel namespaces but time, whose bit is part of the exit signal.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// What personality(2) may be set to: Linux, with or without 32-bit `uname`, with or without
/// 16-bit kernel ids (`UNAME26`), and the question for the present one.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The profile for a process with these capabilities in its bounding set.
///
/// On 32-bit x86, `socketcall` is another way to every kind of socket. It stays open, because the
/// C libraries of Debian and others have no other, and a filter can't see its arguments.
pub fn default_seccomp(bounding: &[String]) -> Seccomp {
    let has = |capability: &str| bounding.iter().any(|one| one == capability);
    let mut syscalls: Vec<_> = ALWAYS.iter().map(|names| allow(names, Vec::new())).collect();
    syscalls.push(allow(OF_ARCHITECTURE, Vec::new()));
    syscalls.extend(sockets());
    for value in PERSONALITIES {
        syscalls.push(allow("personality", vec![argument(EQUAL, value)]));
    }
    for (capability, names) in BY_CAPABILITY {
        if has(capability) {
            syscalls.push(allow(names, Vec::new()));
        }
    }
    if !has("CAP_SYS_ADMIN") {
        syscalls.extend(new_processes());
    }
    Seccomp {
        default_action: ERRNO.to_owned(),
        architectures: ARCHITECTURES.map(str::to_owned).to_vec(),
        syscalls,
        ..Seccomp::default()
    }
}

/// All address families but two. Two conditions on one argument would be alternatives.
fn sockets() -> [Syscall; 3] {
    let condition = |op, value| allow("socket", vec![argument(op, value)]);
    [condition(LESS, AF_ALG), condition(EQUAL, AF_ALG + 1), condition(GREATER, AF_VSOCK)]
}

/// New processes and threads without new kernel namespaces. `clone3` hides its flags from the
/// filter; where it is absent, the C library uses `clone`.
fn new_processes() -> [Syscall; 2] {
    let clone = Argument { value_two: 0, ..argument(MASKED_EQUAL, NEW_NAMESPACES) };
    let clone3 = Syscall {
        names: vec!["clone3".to_owned()],
        action: ERRNO.to_owned(),
        errno_ret: Some(ENOSYS),
        args: Vec::new(),
    };
    [allow("clone", vec![clone]), clone3]
}

/// `names` separated by white space.
fn allow(names: &str, args: Vec<Argument>) -> Syscall {
    let names = names.split_whitespace().map(str::to_owned).collect();
    Syscall { names, action: ALLOW.to_owned(), errno_ret: None, args }
}

fn argument(op: &str, value: u64) -> Argument {
    Argument { index: 0, value, value_two: 0, op: op.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(profile: &Seccomp) -> BTreeSet<&str> {
        let allowed = profile.syscalls.iter().filter(|rule| rule.action == ALLOW);
        allowed.flat_map(|rule| &rule.names).map(String::as_str).collect()
    }

    #[test]
    fn no_name_is_listed_twice_or_in_two_places() {
        let all: Vec<_> = ALWAYS.iter().flat_map(|names| names.split_whitespace()).collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), distinct.len());
        for (capability, names) in BY_CAPABILITY {
            assert!(names.split_whitespace().all(|name| !distinct.contains(&name)), "{capability}");
        }
    }

    #[test]
    fn capabilities_open_what_needs_them() {
        let plain = default_seccomp(&[]);
        let admin = default_seccomp(&["CAP_SYS_ADMIN".to_owned(), "CAP_SYS_CHROOT".to_owned()]);
        for name in ["mount", "setns", "bpf", "chroot", "clone3"] {
            assert!(!names(&plain).contains(name), "{name}");
            assert!(names(&admin).contains(name), "{name}");
        }
        for name in ["io_uring_setup", "kexec_load", "keyctl", "userfaultfd", "reboot"] {
            assert!(!names(&admin).contains(name), "{name}");
        }
        let refused = plain.syscalls.iter().find(|rule| rule.names == ["clone3"]).unwrap();
        assert_eq!(refused.errno_ret, Some(ENOSYS));
        assert!(admin.syscalls.iter().all(|rule| rule.action == ALLOW));
    }
}
