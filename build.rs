//! Compiles every definition under `proto/` without a system `protoc`.
//!
//! The crate `berth-proto` names this file as its build script, so it runs in `proto/`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message;

/// Packages whose services are spoken over ttrpc, where gRPC stubs would be dead code.
const TTRPC_PACKAGES: &[&str] = &[
    "berth.shim.v1",
    "containerd.runtime.sandbox.v1",
    "containerd.services.events.ttrpc.v1",
    "containerd.task.v3",
];

/// Fields that carry bulk data and are decoded without a copy.
const BULK: &[&str] = &[
    ".containerd.services.content.v1.ReadContentResponse.data",
    ".containerd.services.content.v1.WriteContentRequest.data",
    ".berth.v1.StreamRequest.stdin",
    ".berth.v1.Output.data",
    ".berth.shim.v1",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", root.display());

    let mut files = Vec::new();
    find_definitions(&root, &mut files)?;
    files.sort();

    let mut set = protox::compile(&files, [&root])?;
    fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    for file in &mut set.file {
        if TTRPC_PACKAGES.contains(&file.package()) {
            file.service.clear();
        }
    }

    let mut config = prost_build::Config::new();
    config.enable_type_names().bytes(BULK).include_file("packages.rs");
    tonic_prost_build::configure().compile_fds_with_config(set, config)?;
    Ok(())
}

/// Collects the `.proto` files below `directory`.
fn find_definitions(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find_definitions(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
