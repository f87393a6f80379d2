//! Linux as berth uses it: the only crate with unsafe code and raw system calls.
#![allow(unsafe_code)]

mod bpf;
pub mod capability;
pub mod cgroup;
pub mod clone;
pub mod exec;
pub mod init;
pub mod interface;
pub mod last_close;
pub mod loop_device;
pub mod loopback;
pub mod malloc;
pub mod mount;
pub mod namespace;
mod netlink;
pub mod path;
pub mod pidfd;
pub mod process;
pub mod procfs;
pub mod pty;
pub mod rlimit;
pub mod scheduling;
pub mod seccomp;
pub mod socket;
pub mod verity;
