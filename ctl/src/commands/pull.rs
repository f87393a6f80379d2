//! `berth pull`

use berth_proto::berth::v1::PullRequest;
use berth_proto::berth::v1::layer_progress::Phase;
use clap::Args;

use super::missing;
use crate::client::Daemon;
use crate::failure::{Failure, Outcome};
use crate::output::say;
use crate::progress::Progress;

/// Download an image from a registry
#[derive(Args, Debug)]
pub(crate) struct Pull {
    /// Only print the image's name
    #[arg(short, long)]
    quiet: bool,
    /// The platform to fetch: os/architecture[/variant]
    #[arg(long, default_value = "")]
    platform: String,
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

impl Pull {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let reference: berth_types::Reference =
            self.image.parse().map_err(|error| Failure::new(format!("{error}")))?;
        if !self.quiet {
            if reference.tag().is_none() && reference.digest().is_none() {
                say("Using default tag: latest");
            }
            let tag = reference.tag().unwrap_or("latest");
            say(format_args!("{tag}: Pulling from {}", reference.path()));
        }
        let request =
            PullRequest { reference: self.image, platform: self.platform, credentials: None };
        let mut messages = daemon.images().await?.pull(request).await?.into_inner();
        let mut progress = Progress::on_stdout();
        let (mut image, mut fetched) = (None, false);
        while let Some(message) = messages.message().await? {
            fetched |= message.layers.iter().any(|layer| layer.phase() != Phase::Exists);
            if !self.quiet {
                progress.update(&message);
            }
            image = message.image.or(image);
        }
        drop(progress);
        let image = image.ok_or_else(|| missing("image"))?;
        if !self.quiet {
            let status = match fetched {
                true => "Downloaded newer image for",
                false => "Image is up to date for",
            };
            say(format_args!(
                "Digest: {}\nStatus: {status} {}",
                image.digest,
                reference.familiar()
            ));
        }
        say(&image.name);
        Ok(0)
    }
}
