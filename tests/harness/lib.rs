//! The harness of the black-box tests: real daemons, a real registry and real images, on scratch
//! directories and loopback ports of their own.
//!
//! An [`Engine`] is berth's daemon, or Debian's containerd when the environment has
//! `ENGINE=containerd`: a test that uses only containerd's API then judges the reference too.
//! When an engine is dropped it is stopped, and nothing of it may be left: see [`leaks`].

// A harness fails by panicking: that is how a test says what went wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod disk;
mod docker;
mod engine;
mod gate;
mod image;
pub mod leaks;
mod process;
mod registry;
mod terminal;
mod tokens;

pub use disk::SmallDisk;
pub use docker::Docker;
pub use engine::{Engine, Flavor, built};
pub use gate::{Asked, Gate};
pub use image::{Image, Layer, noise};
pub use process::{Finished, Running, wait_until};
pub use registry::{Access, Registry, USER};
pub use terminal::Terminal;
