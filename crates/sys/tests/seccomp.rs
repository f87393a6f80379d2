//! The default filter, as the kernel applies it.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code)]
#![cfg(target_arch = "x86_64")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use berth_sys::seccomp::{Program, compile};
use berth_types::spec::default_seccomp;

fn program(capabilities: &[&str]) -> Program {
    let bounding: Vec<_> = capabilities.iter().map(|one| (*one).to_owned()).collect();
    compile(&default_seccomp(&bounding)).unwrap()
}

/// The error number of each call under the filter, zero for success. In a thread of its own,
/// which the filter ends with.
fn errors<const N: usize>(program: Program, calls: [(i64, [u64; 3]); N]) -> [i32; N] {
    let thread = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        program.install().unwrap();
        calls.map(|(number, [a, b, c])| {
            // SAFETY: the calls of these tests take numbers, or null where a pointer stands.
            match unsafe { libc::syscall(number, a, b, c) } {
                0.. => 0,
                _ => io::Error::last_os_error().raw_os_error().unwrap(),
            }
        })
    });
    thread.join().unwrap()
}

#[test]
fn what_is_refused_and_how() {
    const NEWER_THAN_ALL: i64 = 9999;
    let calls = [
        (libc::SYS_io_uring_setup, [1, 0, 0]),
        (libc::SYS_socket, [38, 5, 0]),
        (libc::SYS_socket, [40, 1, 0]),
        (libc::SYS_unshare, [0, 0, 0]),
        (libc::SYS_clone3, [0, 0, 0]),
        (libc::SYS_personality, [0x0040_0000, 0, 0]),
        (libc::SYS_keyctl, [0, 0, 0]),
        (NEWER_THAN_ALL, [0, 0, 0]),
    ];
    let (perm, nosys) = (libc::EPERM, libc::ENOSYS);
    assert_eq!(errors(program(&[]), calls), [perm, perm, perm, perm, nosys, perm, perm, nosys]);
}

#[test]
fn what_is_allowed() {
    let calls = [
        (libc::SYS_socket, [1, 1, 0]),
        (libc::SYS_socket, [16, 3, 0]),
        (libc::SYS_personality, [0xffff_ffff, 0, 0]),
        (libc::SYS_getpid, [0, 0, 0]),
    ];
    assert_eq!(errors(program(&[]), calls), [0; 4]);
}

#[test]
fn capabilities_open_calls() {
    // A null path gets as far as the kernel's own check.
    let chroot = [(libc::SYS_chroot, [0, 0, 0]), (libc::SYS_unshare, [0, 0, 0])];
    assert_eq!(errors(program(&["CAP_SYS_CHROOT"]), chroot), [libc::EFAULT, libc::EPERM]);
    let admin = [(libc::SYS_unshare, [0, 0, 0]), (libc::SYS_clone3, [0, 0, 0])];
    assert_eq!(errors(program(&["CAP_SYS_ADMIN"]), admin), [0, libc::EINVAL]);
}

#[test]
fn ordinary_programs_run() {
    let program = program(&[]);
    let mut shell = Command::new("/bin/sh");
    shell.args([
        "-c",
        "set -e; t=$(mktemp); (echo a; echo b) | sort -r >$t; cat $t; rm $t; sleep 0",
    ]);
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe {
        shell.pre_exec(move || {
            rustix::thread::set_no_new_privs(true)?;
            program.install().map(drop)
        });
    }
    let output = shell.output().unwrap();
    assert_eq!(output.stdout, b"b\na\n", "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every container pays for the length and every call for the depth.
#[test]
fn the_program_is_small() {
    assert!(program(&[]).len() < 600, "{}", program(&[]).len());
}
