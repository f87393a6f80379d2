//! The binaries that are measured: those beside this program.

use std::process::Command;

use anyhow::{Result, ensure};

/// Builds them in this program's own profile, when it was started by cargo.
pub(crate) fn binaries() -> Result<()> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let mut command = Command::new(cargo);
    command.args(["build", "-p", "berthd", "-p", "berth", "-p", "containerd-shim-berth-v1"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    ensure!(command.status()?.success(), "berth could not be built");
    Ok(())
}
