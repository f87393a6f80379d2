//! Compiles the program of the embedded image into one static file, which the daemon includes.

use std::path::PathBuf;
use std::process::Command;
use std::{env, io};

/// The program's source.
const SOURCE: &str = "embedded/hello.rs";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed={SOURCE}");
    let variable = |name: &str| {
        env::var_os(name).ok_or_else(|| io::Error::other(format!("cargo did not set {name}")))
    };
    let output = PathBuf::from(variable("OUT_DIR")?).join("hello");
    let status = Command::new(variable("RUSTC")?)
        .args(["--edition=2024", "--crate-name=hello", "--crate-type=bin", "-o"])
        .arg(&output)
        .arg("--target")
        .arg(variable("TARGET")?)
        .args(["-C", "target-feature=+crt-static", "-C", "panic=abort", "-C", "strip=symbols"])
        .args(["-C", "opt-level=s", "-C", "lto=fat", "-C", "codegen-units=1"])
        // Fixed addresses: the kernel starts it without relocating it first.
        .args(["-C", "relocation-model=static"])
        // Equal sources give an equal image, wherever they were built.
        .args(["--remap-path-prefix", &format!("{}=.", env!("CARGO_MANIFEST_DIR"))])
        .arg(SOURCE)
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("compile {SOURCE}: {status}")));
    }
    Ok(())
}
