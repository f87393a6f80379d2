//! The OCI runtimes alone: the whole command that runs `true` from a bundle.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Bench;
use crate::peer::Peer;
use crate::samples::{alternate, time};
use crate::table::{Better, Table};

/// `run` in turn, of the same bundle.
pub(crate) fn measure(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("br").tempdir_in("/tmp")?;
    let bundle = directory.path().join("bundle");
    make_bundle(&bundle)?;
    let mut number = 0;
    let figures = alternate(bench.arguments.runs, peers, |peer| {
        number += 1;
        let Some(runtime) = program(peer) else { return Ok(None) };
        let state = directory.path().join(peer.name());
        let id = format!("run-{number}");
        Ok(Some(time(|| run(&runtime, &state, &bundle, &id))?))
    })?;
    table.add("`RUNTIME run` of `true`", "ms", Better::Less, &figures, None);
    Ok(())
}

/// The runtime that the engine uses, once for each.
fn program(peer: &Peer) -> Option<PathBuf> {
    match peer.name() {
        "berth" => Some(berth_tests::built("berth-oci")),
        name if name.contains("runc") => Some("runc".into()),
        _ => None,
    }
}

/// A root filesystem of busybox, and the specification that the runtime itself proposes.
fn make_bundle(bundle: &Path) -> Result<()> {
    let bin = bundle.join("rootfs/bin");
    std::fs::create_dir_all(&bin)?;
    std::fs::copy("/bin/busybox", bin.join("true"))?;
    let spec = Command::new(berth_tests::built("berth-oci"))
        .args(["spec", "--bundle"])
        .arg(bundle)
        .status()?;
    ensure!(spec.success(), "no specification was made");
    let path = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    spec["process"]["args"] = json!(["/bin/true"]);
    spec["process"]["terminal"] = json!(false);
    // A machine may forbid raising them.
    spec["process"]["rlimits"] = json!([]);
    Ok(std::fs::write(&path, spec.to_string())?)
}

fn run(runtime: &Path, state: &Path, bundle: &Path, id: &str) -> Result<()> {
    let mut command = Command::new(runtime);
    command.arg("--root").arg(state).args(["run", "--bundle"]).arg(bundle).arg(id);
    let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.with_context(|| runtime.display().to_string())?;
    ensure!(status.success(), "{} ended with {status}", runtime.display());
    Ok(())
}
