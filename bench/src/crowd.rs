//! Many idle containers: memory of daemon and shims, listing, and a killed daemon's return.

use std::fs;

use anyhow::{Context, Result};
use berth_tests::Engine;
use nix::sys::signal::Signal;

use crate::Bench;
use crate::peer::Peer;
use crate::samples::{Samples, time};
use crate::table::{Better, Table};

/// How often a large crowd is listed.
const LISTINGS: usize = 10;

/// How often its daemon is killed.
const RESTARTS: usize = 5;

/// The memory of a crowd that fits on any machine, one engine after the other.
pub(crate) fn measure_memory(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    let count = bench.arguments.containers;
    let (mut alone, mut each, mut shims) = (Vec::new(), Vec::new(), Vec::new());
    for peer in peers {
        alone.push(Samples::from_iter([daemon_rss(peer)? / 1024.0]));
        // What the first container brings into memory, code above all, is no other's.
        remove(peer, &start(bench, peer, 1)?)?;
        let before = daemon_rss(peer)?;
        let names = start(bench, peer, count)?;
        each.push(Samples::from_iter([(daemon_rss(peer)? - before) / count as f64]));
        let pss = peer.shim_pids().into_iter().map(|pid| rollup(pid, "Pss:"));
        shims.push(pss.collect::<Result<_>>()?);
        remove(peer, &names)?;
    }
    let name = format!("daemon, for each of {count} containers, RSS");
    table.add("daemon without containers, RSS", "MiB", Better::Less, &alone, None);
    table.add(&name, "KiB", Better::Less, &each, None);
    table.add(&format!("a shim of {count}, PSS"), "KiB", Better::Less, &shims, None);
    Ok(())
}

/// What a large crowd holds up, of the engines whose containers outlive their daemon: Docker ends
/// its own.
pub(crate) fn measure_many(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    let count = bench.arguments.many;
    let mut lists = vec![Samples::default(); peers.len()];
    let mut returns = lists.clone();
    for (index, peer) in peers.iter_mut().enumerate() {
        if peer.restartable().is_none() {
            continue;
        }
        let names = start(bench, peer, count)?;
        for _ in 0..LISTINGS {
            lists[index].add(time(|| peer.list())?);
        }
        for _ in 0..RESTARTS {
            peer.restartable().map(|engine| engine.stop_daemon(Signal::SIGKILL));
            returns[index].add(time(|| {
                peer.restartable().map(Engine::start_daemon);
                peer.list()
            })?);
        }
        remove(peer, &names)?;
    }
    table.add(&format!("`ps` of {count}"), "ms", Better::Less, &lists, None);
    let name = format!("from `kill -9` of the daemon to a `ps` of {count}");
    table.add(&name, "ms", Better::Less, &returns, None);
    Ok(())
}

fn start(bench: &Bench, peer: &Peer, count: usize) -> Result<Vec<String>> {
    let name = |number| format!("crowd-{number}");
    let names: Vec<_> = (0..count).map(name).collect();
    names.iter().try_for_each(|name| peer.start(&bench.image, name))?;
    Ok(names)
}

fn remove(peer: &Peer, names: &[String]) -> Result<()> {
    names.iter().try_for_each(|name| peer.remove(name))
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
