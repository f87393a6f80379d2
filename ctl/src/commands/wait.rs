//! `berth wait`

use berth_proto::berth::v1::WaitRequest;
use clap::Args;

use super::{for_each, missing};
use crate::client::Daemon;
use crate::failure::Outcome;

/// Block until containers stop, then print their exit codes
#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Wait {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let client = daemon.containers().await?;
        for_each(self.containers, |container| {
            let mut client = client.clone();
            async move {
                let answer = client.wait(WaitRequest { container }).await?.into_inner();
                let exited = answer.exited.ok_or_else(|| missing("exit"))?;
                Ok(exited.code.to_string())
            }
        })
        .await
    }
}
