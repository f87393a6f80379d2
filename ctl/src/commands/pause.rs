//! `berth pause`

use berth_proto::berth::v1::PauseRequest;
use clap::Args;

use super::for_each;
use crate::client::Daemon;
use crate::failure::Outcome;

/// Pause all processes within one or more containers
#[derive(Args, Debug)]
pub(crate) struct Pause {
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Pause {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let client = daemon.containers().await?;
        for_each(self.containers, |container| {
            let mut client = client.clone();
            async move {
                client.pause(PauseRequest { container: container.clone() }).await?;
                Ok(container)
            }
        })
        .await
    }
}
