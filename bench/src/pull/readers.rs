//! Ten containers that read every file of their image at once, with nothing of it cached.

use std::thread;

use anyhow::{Result, anyhow};

use super::{Cache, Subject, directories, prepare};
use crate::Bench;
use crate::peer::Peer;
use crate::samples::{Samples, time};
use crate::table::{Better, Table};

/// Containers at a time.
const READERS: usize = 10;

/// What each of them does.
const READ: [&str; 3] = ["sh", "-c", "find / -xdev -type f -exec cat {} + > /dev/null"];

/// The large image, for each engine in turn; then berth with its layers as directories.
pub(crate) fn measure(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    let Subject { title, reference, .. } = Subject::large(bench);
    let rounds = bench.arguments.pulls;
    let mut figures = vec![Samples::default(); peers.len()];
    peers.iter().try_for_each(|peer| peer.pull(&reference))?;
    for _ in 0..rounds {
        for (peer, samples) in peers.iter().zip(&mut figures) {
            samples.add(take(peer, &reference)?);
        }
    }
    peers.iter().try_for_each(|peer| peer.remove_image(&reference))?;
    let name = format!("{READERS} containers read all of {title}");
    table.add(&name, "s", Better::Less, &figures, None);

    let mut figures = vec![Samples::default(); peers.len()];
    for (peer, samples) in peers.iter().zip(&mut figures) {
        let Some(engine) = directories::berth(peer) else { continue };
        directories::within(engine, || -> Result<()> {
            peer.pull(&reference)?;
            for _ in 0..rounds {
                samples.add(take(peer, &reference)?);
            }
            peer.remove_image(&reference)
        })?;
    }
    table.add("the same, as directories", "s", Better::Less, &figures, None);
    Ok(())
}

/// In seconds.
fn take(peer: &Peer, reference: &str) -> Result<f64> {
    prepare(Cache::Cold)?;
    let elapsed = time(|| {
        thread::scope(|scope| {
            let read = |number| peer.run(reference, &format!("reader-{number}"), &READ);
            let threads: Vec<_> =
                (0..READERS).map(|number| scope.spawn(move || read(number))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow!("a reader panicked")))
            })
        })
    })?;
    Ok(elapsed / 1e3)
}
