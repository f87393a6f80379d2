//! When to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use berth_types::{Result, ResultExt};

/// The signals that ask for a clean stop. They are caught from the moment of creation, so that
/// none is missed during the start.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Starts to catch SIGTERM and SIGINT.
    ///
    /// # Errors
    /// When the handlers can't be installed.
    pub(crate) fn catch() -> Result<Self> {
        let install = |kind| signal(kind).context(|| "catch signals");
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    /// Answers when one of them has come, with its name.
    pub(crate) async fn received(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
