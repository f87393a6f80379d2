//! Pulls from a real registry into real stores.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

mod containerd;
mod discards;
#[allow(dead_code, reason = "shared with the tests of the registry client")]
#[path = "../../../registry/tests/registry/support/docker.rs"]
mod docker;
mod failures;
mod fixture;
mod formats;
#[allow(dead_code, reason = "shared with the tests of the registry client")]
#[path = "../../../registry/tests/registry/support/hostile.rs"]
mod hostile;
mod image;
mod imports;
mod layers;
mod pulls;
mod resumes;
mod served;
