//! `berth rm`

use berth_proto::berth::v1::RemoveRequest;
use clap::Args;

use super::for_each;
use crate::client::Daemon;
use crate::failure::{Failure, Outcome};
use crate::output::complain;

/// Remove one or more containers
#[derive(Args, Debug)]
pub(crate) struct Rm {
    /// Kill a running container first; a container that is not there is no failure
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes too; there are none yet
    #[arg(short, long)]
    volumes: bool,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Rm {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let client = daemon.containers().await?;
        let force = self.force;
        for_each(self.containers, |container| {
            let mut client = client.clone();
            async move {
                let request = RemoveRequest { container: container.clone(), force };
                match client.remove(request).await.map_err(Failure::from) {
                    Err(failure) if force && failure.is_not_found() => {
                        complain(&failure);
                        Ok(None)
                    }
                    Err(failure) => Err(failure),
                    Ok(_) => Ok(Some(container)),
                }
            }
        })
        .await
    }
}
