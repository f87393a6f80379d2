//! Linux as berth uses it: the only crate with unsafe code and raw system calls.
#![allow(unsafe_code)]

mod bpf;
pub mod cgroup;
