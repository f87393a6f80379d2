//! What an engine uses beside time: the processor, memory, and the disk.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use rustix::fs::{major, minor};

/// The unit of the figures of a block device, bytes.
const SECTOR: f64 = 512.0;

/// What was used between two moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Of the daemon, of its clients and of their children, seconds.
    pub(crate) processor: f64,
    /// Of everyone on the disk of `/tmp`, what was still to be flushed among it, MiB.
    pub(crate) written: f64,
    /// The most that the daemon's processes had in memory, MiB.
    pub(crate) memory: f64,
}

/// A measure of [`Usage`] under way.
pub(crate) struct Meter {
    daemon: Vec<u32>,
    processor: f64,
    written: f64,
}

impl Meter {
    /// Begins, for the processes of a daemon.
    pub(crate) fn start(daemon: Vec<u32>) -> Result<Self> {
        rustix::fs::sync();
        for pid in &daemon {
            // The most that was in memory is counted from here: proc_pid_clear_refs(5).
            let path = format!("/proc/{pid}/clear_refs");
            fs::write(&path, "5").with_context(|| path.clone())?;
        }
        Ok(Self { processor: processor(&daemon)?, written: written()?, daemon })
    }

    /// Ends, with what was used since.
    pub(crate) fn stop(self) -> Result<Usage> {
        let processor = processor(&self.daemon)? - self.processor;
        let memory = self.daemon.iter().map(|&pid| peak(pid)).sum::<Result<f64>>()?;
        rustix::fs::sync();
        Ok(Usage { processor, written: written()? - self.written, memory })
    }
}

/// Of the processes, of the children that they waited for, and of ours: clients.
fn processor(daemon: &[u32]) -> Result<f64> {
    let ours = ticks("self", &[15, 16])?;
    let theirs = daemon.iter().map(|pid| ticks(&pid.to_string(), &[13, 14, 15, 16]));
    let ticks = ours + theirs.sum::<Result<f64>>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// The sum of fields of proc_pid_stat(5), counted from 0.
fn ticks(process: &str, fields: &[usize]) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The second field is the name, in brackets; it may hold anything.
    let (_, rest) = text.rsplit_once(") ").context("no name")?;
    let words: Vec<_> = rest.split(' ').collect();
    let field = |&number: &usize| -> Result<f64> {
        Ok(words.get(number - 2).context("no such field")?.parse()?)
    };
    fields.iter().map(field).sum()
}

/// In MiB.
fn peak(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    let figure: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(figure / 1024.0)
}

/// In MiB, since the disk is there.
fn written() -> Result<f64> {
    let device = fs::metadata("/tmp")?.dev();
    let path = format!("/sys/dev/block/{}:{}/stat", major(device), minor(device));
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let sectors: f64 = text.split_whitespace().nth(6).context("no sectors")?.parse()?;
    Ok(sectors * SECTOR / f64::from(1 << 20))
}
