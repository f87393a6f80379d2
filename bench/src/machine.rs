//! What the figures were taken on.

use std::fs;
use std::io::Write;
use std::process::Command;

use anyhow::Result;

use crate::samples::{Samples, time};

/// Writes of the disk's figure.
const WRITES: usize = 50;

/// Prints machine, kernel, versions and how long the disk takes to keep a page.
pub(crate) fn print() -> Result<()> {
    let text = |path: &str| fs::read_to_string(path);
    let cpu = field(&text("/proc/cpuinfo")?, "model name").unwrap_or_default();
    let memory = field(&text("/proc/meminfo")?, "MemTotal").unwrap_or_default();
    let processors = std::thread::available_parallelism()?;
    println!("- machine: {processors} × {cpu}, {memory}");
    println!("- kernel: {}", text("/proc/sys/kernel/osrelease")?.trim());
    for (program, argument) in [
        ("containerd", "--version"),
        ("runc", "--version"),
        ("dockerd", "--version"),
        ("docker-registry", "--version"),
    ] {
        if let Some(version) = version(program, argument) {
            println!("- {version}");
        }
    }
    let disk = fdatasync()?;
    let (least, most) = disk.range();
    println!("- fdatasync of 4 KiB: {:.2} ms ({least:.2}–{most:.2})", disk.median());
    println!("- {}\n", load()?);
    Ok(())
}

/// How busy the machine has been.
pub(crate) fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let averages: Vec<_> = text.split(' ').take(3).collect();
    Ok(format!("load of the last 1, 5 and 15 minutes: {}", averages.join(", ")))
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}

fn fdatasync() -> Result<Samples> {
    let mut file = tempfile::tempfile_in("/tmp")?;
    (0..WRITES)
        .map(|_| {
            file.write_all(&[1; 4096])?;
            time(|| Ok(file.sync_data()?))
        })
        .collect()
}
