//! The berth shim as a library: what its binary and its tests are made of.

pub mod container;
pub mod service;
