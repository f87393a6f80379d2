//! The whole command that runs `true` in a running container.

use anyhow::Result;

use crate::Bench;
use crate::peer::Peer;
use crate::samples::{alternate, time};
use crate::table::{Better, Table};

/// Commands in turn.
pub(crate) fn measure(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    peers.iter().try_for_each(|peer| peer.start(&bench.image, "exec"))?;
    let mut number = 0;
    let figures = alternate(bench.arguments.runs, peers, |peer| {
        number += 1;
        let id = format!("exec-{number}");
        Ok(Some(time(|| peer.exec("exec", &id))?))
    })?;
    table.add("`exec CONTAINER true`", "ms", Better::Less, &figures, None);
    peers.iter().try_for_each(|peer| peer.remove("exec"))
}
