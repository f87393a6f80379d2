//! The whole command that runs `true` in a new container and removes it.

use anyhow::Result;

use crate::Bench;
use crate::floor::Floor;
use crate::peer::Peer;
use crate::samples::{Samples, alternate, time};
use crate::table::{Better, Table};
use crate::tool::Tool;

/// Commands in turn, and the kernel work alone in the same run; once by each engine's own client,
/// once by `ctr` for all that it can talk to.
pub(crate) fn measure(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    let runs = bench.arguments.runs;
    let mut kernel = Floor::start()?;
    let mut floor = Samples::default();
    let mut number = 0;
    let figures = alternate(runs, peers, |peer| {
        number += 1;
        floor.add_time(kernel.take()?);
        let id = format!("start-{number}");
        Ok(Some(time(|| peer.run(&bench.image, &id, &["true"]))?))
    })?;
    table.add("`run --rm IMAGE true`", "ms", Better::Less, &figures, Some(&floor));

    let figures = alternate(runs, peers, |peer| {
        let Some(engine) = peer.for_ctr() else { return Ok(None) };
        number += 1;
        let id = format!("start-{number}");
        let words = Tool::Ctr.run(&bench.image, &id, &["true"]);
        Ok(Some(time(|| Ok(engine.ctr(&words).success()))?))
    })?;
    table.add("the same by `ctr`", "ms", Better::Less, &figures, Some(&floor));
    Ok(())
}
