//! `berth kill`

use berth_proto::berth::v1::KillRequest;
use clap::Args;

use super::{for_each, parse_signal};
use crate::client::Daemon;
use crate::failure::Outcome;

/// Kill one or more running containers
#[derive(Args, Debug)]
pub(crate) struct Kill {
    /// Signal to send
    #[arg(short, long, value_parser = parse_signal, default_value = "KILL")]
    signal: u32,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Kill {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let client = daemon.containers().await?;
        for_each(self.containers, |container| {
            let mut client = client.clone();
            async move {
                let request = KillRequest { container: container.clone(), signal: self.signal };
                client.kill(request).await?;
                Ok(container)
            }
        })
        .await
    }
}
