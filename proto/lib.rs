//! The wire: messages, clients and servers generated from the definitions in this directory.
//!
//! Modules follow the protobuf packages: `containerd.services.images.v1` is
//! [`containerd::services::images::v1`]. Packages, messages, fields and tags under `containerd`
//! and `io.containerd` equal those of containerd's public API (2.x), because stock clients speak
//! them; `berth.v1` and `berth.shim.v1` are our own.
//!
//! Services that travel over ttrpc instead of gRPC (the shim's task service, event forwarding)
//! have messages here but no generated stubs: the crate `berth-ttrpc` addresses them by name.

#![allow(missing_docs, clippy::all, rustdoc::all, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/packages.rs"));

/// All definitions as an encoded `google.protobuf.FileDescriptorSet`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
