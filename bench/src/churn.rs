//! Containers run and removed per second, one and eight at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;

use crate::peer::Peer;
use crate::samples::{alternate, time};
use crate::table::{Better, Table};
use crate::{Arguments, floor};

/// Containers in one counted run.
const CONTAINERS: usize = 40;

/// Counted runs.
const RUNS: usize = 3;

/// Both widths for each engine in turn, and the kernel work alone.
pub(crate) fn measure(_: &Arguments, peers: &[Peer], table: &mut Table) -> Result<()> {
    for width in [1, 8] {
        let mut round = 0;
        let figures = alternate(RUNS, peers, |peer| {
            round += 1;
            let run = |number| peer.run(&format!("churn-{width}-{round}-{number}"), &["true"]);
            rate(width, run)
        })?;
        let floors = alternate(RUNS, &[()], |()| rate(width, |_| floor::start_of_true().map(drop)))?;
        let name = format!("churn, {width} at a time");
        table.add(&name, "containers/s", Better::More, &figures, floors.first());
    }
    Ok(())
}

/// How many of `run` end per second, `width` at a time.
fn rate(width: usize, run: impl Fn(usize) -> Result<()> + Sync) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= CONTAINERS {
                return Ok(());
            }
            run(number)?;
        }
    };
    let elapsed = time(|| {
        thread::scope(|scope| {
            let workers: Vec<_> = (0..width).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")))
            })
        })
    })?;
    Ok(CONTAINERS as f64 / elapsed.as_secs_f64())
}
