//! A client of another house: the crate `containerd-client`, in a program that is built here, since
//! the crate's own build needs protoc.

use std::path::Path;
use std::process::Command;

use berth_tests::{Engine, Finished, Flavor, Image, Registry, built};

/// Builds the program and returns its path.
fn build() -> std::path::PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("client");
    // Beside this build, which may hold the lock of its own directory.
    let target = built("client");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--manifest-path"]);
    cargo.arg(package.join("Cargo.toml")).arg("--target-dir").arg(&target);
    // What this build was asked for says nothing about that one.
    cargo.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    Finished::leaving(&mut cargo).success();
    target.join("debug/berth-client-test")
}

#[test]
fn a_program_with_the_crate_containerd_client_runs_a_containers_whole_life() {
    let program = build();
    let engine = Engine::start();
    let registry = Registry::start();
    let image = Image::busybox(&registry.reference("box"));
    // Debian's containerd is older than transfers.
    let origin = match engine.flavor() {
        Flavor::Berth => {
            registry.push(&Image::busybox("box"));
            "pull"
        }
        Flavor::Containerd => {
            engine.import(&image);
            "there"
        }
    };
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "120"]).arg(program);
    command.arg(engine.address()).arg(engine.namespace()).arg(registry.reference("box"));
    let output = engine.path("output");
    Finished::run("mkfifo", &[&output], b"").success();
    command.arg(origin).arg(output);
    Finished::leaving(&mut command).success();
}
