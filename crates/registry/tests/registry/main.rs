//! The registry client against a real registry, and against servers that misbehave.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

mod docker_registry;
mod hostile_answers;
mod hostile_blobs;
mod support;
