//! Conformance with the OCI runtime specification, one module for each area.
//!
//! Each test states the paragraph that it is about and runs against both `berth-oci` and Debian's
//! runc, so that an expectation is checked on the reference before it is ours. What the reference
//! is too old for, or the machine lacks, is skipped with a line on standard error.
//!
//! Paragraphs are named by their document and heading in
//! <https://github.com/opencontainers/runtime-spec/tree/v1.3.0>.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod attacks;
mod bad;
mod churn;
mod clients;
mod command;
mod devices;
mod exec;
mod faults;
mod filter;
mod flags;
mod hooks;
mod lifecycle;
mod limits;
mod mounts;
mod namespaces;
mod nonsense;
mod process;
mod rig;
mod rights;
mod root;
mod terminal;
mod userns;
