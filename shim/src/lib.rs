//! The berth shim as a library: what its binary and its tests are made of.

// The library is there for the binary and the tests: its documentation is read in the source,
// where private items are at hand.
#![allow(rustdoc::private_intra_doc_links)]

pub mod container;
pub mod features;
pub mod log;
pub mod service;
