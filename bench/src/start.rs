//! The whole command that runs `true` in a new container and removes it.

use anyhow::Result;

use crate::peer::Peer;
use crate::samples::{Samples, alternate, time};
use crate::table::{Better, Table};
use crate::{Arguments, floor};

/// Commands in turn, and the kernel work alone in the same run.
pub(crate) fn measure(arguments: &Arguments, peers: &[Peer], table: &mut Table) -> Result<()> {
    let mut floor = Samples::default();
    let mut number = 0;
    let figures = alternate(arguments.runs, peers, |peer| {
        number += 1;
        floor.add_time(floor::start_of_true()?);
        let id = format!("start-{number}");
        Ok(time(|| peer.run(&id, &["true"]))?.as_secs_f64() * 1e3)
    })?;
    table.add("`run --rm IMAGE true`", "ms", Better::Less, &figures, Some(&floor));
    Ok(())
}
