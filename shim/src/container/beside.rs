//! Work of the shim that may block, in a child that its reaper doesn't see.

use std::os::fd::AsFd;

use berth_sys::{clone, pidfd};
use berth_types::{Error, Result, ResultExt};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::handshake::{self, Report, ShimEnd};

/// Does `work` in a child, and waits until it is done. What the child changes of itself, such as
/// its namespaces, ends with it.
pub(super) async fn run(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (shim, child_end) = handshake::pair()?;
    let options = clone::Options { unseen: true, ..clone::Options::default() };
    let child = clone::spawn(options, || {
        // Nobody is left who waits for it then. It fails for no signal that there is.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let report = work().map_or_else(Report::Failed, |()| Report::Ready);
        child_end.report(&report).is_err().into()
    })
    .context(|| "start a process")?;
    drop(child_end);
    let report = ShimEnd::new(shim)?.next().await;
    pidfd::wait(child.pidfd.as_fd()).context(|| "wait for a process")?;
    match report? {
        Some(Report::Ready) => Ok(()),
        Some(Report::Failed(error)) => Err(error),
        _ => Err(Error::internal("a process of the shim's died")),
    }
}
