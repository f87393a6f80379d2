//! `berth restart`

use berth_proto::berth::v1::RestartRequest;
use clap::Args;

use super::{for_each, parse_signal};
use crate::client::Daemon;
use crate::failure::Outcome;

/// Restart one or more containers
#[derive(Args, Debug)]
pub(crate) struct Restart {
    /// Seconds to wait before killing the container; -1 to wait for ever
    #[arg(short = 't', long = "timeout", visible_alias = "time")]
    timeout: Option<i64>,
    /// Signal to send first
    #[arg(short, long, value_parser = parse_signal)]
    signal: Option<u32>,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Restart {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let client = daemon.containers().await?;
        for_each(self.containers, |container| {
            let mut client = client.clone();
            async move {
                let request = RestartRequest {
                    container: container.clone(),
                    timeout_seconds: self.timeout,
                    signal: self.signal.unwrap_or_default(),
                };
                client.restart(request).await?;
                Ok(container)
            }
        })
        .await
    }
}
