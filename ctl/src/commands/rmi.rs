//! `berth rmi`

use berth_proto::berth::v1::RemoveImageRequest;
use clap::Args;

use crate::client::Daemon;
use crate::failure::{Failure, Outcome};
use crate::human::printable;
use crate::output::{complain, say};

/// Remove one or more images
#[derive(Args, Debug)]
pub(crate) struct Rmi {
    /// Remove it even if containers use it
    #[arg(short, long)]
    force: bool,
    /// Images, by name or id
    #[arg(required = true)]
    images: Vec<String>,
}

impl Rmi {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let mut client = daemon.images().await?;
        let mut code = 0;
        for image in self.images {
            match client.remove(RemoveImageRequest { image, force: self.force }).await {
                Ok(response) => {
                    let removed = response.into_inner();
                    for name in removed.untagged {
                        say(format_args!("Untagged: {}", printable(&name)));
                    }
                    for digest in removed.deleted {
                        say(format_args!("Deleted: {digest}"));
                    }
                }
                Err(status) => {
                    let failure = Failure::from(status);
                    complain(&failure);
                    code = failure.code();
                }
            }
        }
        Ok(code)
    }
}
