//! `berth system`

mod check;

use clap::{Args, Subcommand};

use crate::client::Daemon;
use crate::failure::Outcome;

/// Look after what the daemon keeps
#[derive(Args, Debug)]
pub(crate) struct System {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify all blobs, layers and records, and repair them
    Check(check::Check),
}

impl System {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        match self.command {
            Command::Check(command) => command.run(daemon).await,
        }
    }
}
