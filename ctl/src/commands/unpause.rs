//! `berth unpause`

use berth_proto::berth::v1::UnpauseRequest;
use clap::Args;

use super::for_each;
use crate::client::Daemon;
use crate::failure::Outcome;

/// Let all processes go on within one or more containers
#[derive(Args, Debug)]
pub(crate) struct Unpause {
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Unpause {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let client = daemon.containers().await?;
        for_each(self.containers, |container| {
            let mut client = client.clone();
            async move {
                client.unpause(UnpauseRequest { container: container.clone() }).await?;
                Ok(container)
            }
        })
        .await
    }
}
