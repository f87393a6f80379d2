//! Many idle containers: memory of daemon and shims, listing, and a restart of the daemon.

use std::fs;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::Bench;
use crate::peer::Peer;
use crate::samples::{Samples, time};
use crate::table::{Better, Table};

/// How often the containers are listed.
const LISTINGS: usize = 10;

/// What one engine has to show.
#[derive(Default)]
struct Crowd {
    idle: Samples,
    each: Samples,
    shims: Samples,
    list: Samples,
    restart: Samples,
}

/// One engine after the other, each with a crowd of its own.
pub(crate) fn measure(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    let crowds = peers.iter_mut().map(|peer| gather(bench, peer)).collect::<Result<Vec<_>>>()?;
    let count = bench.arguments.containers;
    let mut row = |name: &str, unit, select: fn(&Crowd) -> &Samples| {
        let figures: Vec<_> = crowds.iter().map(|crowd| select(crowd).clone()).collect();
        table.add(name, unit, Better::Less, &figures, None);
    };
    row("daemon without containers, RSS", "MiB", |crowd| &crowd.idle);
    row(&format!("daemon, for each of {count} containers, RSS"), "KiB", |crowd| &crowd.each);
    row(&format!("a shim of {count}, PSS"), "KiB", |crowd| &crowd.shims);
    row(&format!("`ps` of {count}"), "ms", |crowd| &crowd.list);
    row(&format!("daemon ready again, {count} containers"), "ms", |crowd| &crowd.restart);
    Ok(())
}

fn gather(bench: &Bench, peer: &mut Peer) -> Result<Crowd> {
    let mut crowd = Crowd::default();
    let names: Vec<_> = (0..bench.arguments.containers).map(|n| format!("crowd-{n}")).collect();
    let idle = daemon_rss(peer)?;
    crowd.idle.add(idle / 1024.0);
    names.iter().try_for_each(|name| peer.start(&bench.image, name))?;
    crowd.each.add((daemon_rss(peer)? - idle) / names.len() as f64);
    for pid in peer.shim_pids() {
        crowd.shims.add(rollup(pid, "Pss:")?);
    }
    for _ in 0..LISTINGS {
        crowd.list.add(time(|| peer.list())?);
    }
    // Docker ends its containers with its daemon.
    if let Some(engine) = peer.restartable() {
        engine.stop_daemon(Signal::SIGTERM);
        crowd.restart.add(time(|| {
            engine.start_daemon();
            Ok(())
        })?);
    }
    names.iter().try_for_each(|name| peer.remove(name))?;
    Ok(crowd)
}

/// In KiB.
fn daemon_rss(peer: &Peer) -> Result<f64> {
    peer.daemon_pids().into_iter().map(|pid| rollup(pid, "Rss:")).sum()
}

/// A field of proc_pid_smaps_rollup(5), in KiB.
fn rollup(pid: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find(|line| line.starts_with(field)).context("no such field")?;
    let figure = line.split_whitespace().nth(1).context("no figure")?;
    Ok(figure.parse()?)
}
