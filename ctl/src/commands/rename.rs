//! `berth rename`

use berth_proto::berth::v1::RenameRequest;
use clap::Args;

use crate::client::Daemon;
use crate::failure::Outcome;

/// Rename a container
#[derive(Args, Debug)]
pub(crate) struct Rename {
    /// The container, by name or id
    container: String,
    /// The new name
    name: String,
}

impl Rename {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let request = RenameRequest { container: self.container, name: self.name };
        daemon.containers().await?.rename(request).await?;
        Ok(0)
    }
}
