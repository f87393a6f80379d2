//! Containers run and removed per second, one, eight and thirty-two at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

use crate::Bench;
use crate::floor::Floor;
use crate::peer::Peer;
use crate::samples::{Samples, alternate, time};
use crate::table::{Better, Table};

/// Containers in one counted run.
const CONTAINERS: usize = 64;

/// Counted runs.
const RUNS: usize = 3;

/// Each width for each engine in turn, and the kernel work alone.
pub(crate) fn measure(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    for width in [1, 8, 32] {
        let mut round = 0;
        let figures = alternate(RUNS, peers, |peer| {
            round += 1;
            let run = |(): &mut (), number| {
                peer.run(&bench.image, &format!("churn-{width}-{round}-{number}"), &["true"])
            };
            rate(&mut vec![(); width], run).map(Some)
        })?;
        let name = format!("churn, {width} at a time");
        table.add(&name, "containers/s", Better::More, &figures, Some(&kernel(width)?));
    }
    Ok(())
}

fn kernel(width: usize) -> Result<Samples> {
    let mut floors = (0..width).map(|_| Floor::start()).collect::<Result<Vec<_>>>()?;
    (0..RUNS).map(|_| rate(&mut floors, |floor, _| floor.take().map(drop))).collect()
}

/// How many of `run` end per second, by as many workers as there are.
fn rate<W: Send>(
    workers: &mut [W],
    run: impl Fn(&mut W, usize) -> Result<()> + Sync,
) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let work = |worker: &mut W| -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= CONTAINERS {
                return Ok(());
            }
            run(worker, number)?;
        }
    };
    let elapsed = time(|| {
        thread::scope(|scope| {
            let threads: Vec<_> =
                workers.iter_mut().map(|worker| scope.spawn(|| work(worker))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked")))
            })
        })
    })?;
    Ok(CONTAINERS as f64 * 1e3 / elapsed)
}
