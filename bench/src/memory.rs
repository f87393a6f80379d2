//! Memory of daemon and shims with many idle containers.

use std::fs;

use anyhow::{Context, Result};

use crate::Arguments;
use crate::peer::Peer;
use crate::samples::Samples;
use crate::table::{Better, Table};

/// Starts the containers of each engine, reads, and removes them.
pub(crate) fn measure(arguments: &Arguments, peers: &[Peer], table: &mut Table) -> Result<()> {
    let (mut idle, mut loaded, mut shims) = (Vec::new(), Vec::new(), Vec::new());
    let names: Vec<_> = (0..arguments.containers).map(|n| format!("memory-{n}")).collect();
    for peer in peers {
        idle.push(one(rollup(peer.daemon_pid(), "Rss:")?));
        names.iter().try_for_each(|name| peer.start(name))?;
        loaded.push(one(rollup(peer.daemon_pid(), "Rss:")?));
        let mut samples = Samples::default();
        for pid in peer.shim_pids() {
            samples.add(rollup(pid, "Pss:")?);
        }
        shims.push(samples);
        names.iter().try_for_each(|name| peer.remove(name))?;
    }
    let count = arguments.containers;
    table.add("daemon without containers, RSS", "KiB", Better::Less, &idle, None);
    table.add(&format!("daemon with {count} containers, RSS"), "KiB", Better::Less, &loaded, None);
    table.add(&format!("a shim of {count}, PSS"), "KiB", Better::Less, &shims, None);
    Ok(())
}

fn one(figure: f64) -> Samples {
    let mut samples = Samples::default();
    samples.add(figure);
    samples
}

/// A field of proc_pid_smaps_rollup(5), in KiB.
fn rollup(pid: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find(|line| line.starts_with(field)).context("no such field")?;
    let figure = line.split_whitespace().nth(1).context("no figure")?;
    Ok(figure.parse()?)
}
