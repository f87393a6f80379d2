//! The whole command that runs `true` in a running container.

use anyhow::Result;

use crate::Arguments;
use crate::peer::Peer;
use crate::samples::{alternate, time};
use crate::table::{Better, Table};

/// Commands in turn.
pub(crate) fn measure(arguments: &Arguments, peers: &[Peer], table: &mut Table) -> Result<()> {
    for peer in peers {
        peer.start("exec")?;
    }
    let mut number = 0;
    let figures = alternate(arguments.runs, peers, |peer| {
        number += 1;
        let id = format!("exec-{number}");
        Ok(time(|| peer.exec("exec", &id, &["true"]))?.as_secs_f64() * 1e3)
    })?;
    table.add("`exec CONTAINER true`", "ms", Better::Less, &figures, None);
    for peer in peers {
        peer.remove("exec")?;
    }
    Ok(())
}
