//! `berth tag`

use berth_proto::berth::v1::TagImageRequest;
use clap::Args;

use crate::client::Daemon;
use crate::failure::Outcome;

/// Create a tag TARGET that refers to SOURCE
#[derive(Args, Debug)]
pub(crate) struct Tag {
    /// An image, by name or id
    source: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    target: String,
}

impl Tag {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let request = TagImageRequest { source: self.source, target: self.target };
        daemon.images().await?.tag(request).await?;
        Ok(0)
    }
}
