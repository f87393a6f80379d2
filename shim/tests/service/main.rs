//! The shim as daemons meet it: the real program, spoken to over its socket, with real containers.
//! Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

mod attach;
mod attacks;
mod bootstrap;
mod death;
mod endurance;
mod events;
mod groups;
mod lifecycle;
mod limits;
mod rig;
mod streams;
