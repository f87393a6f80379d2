//! `berth pull`

use std::fmt::Display;

use berth_proto::berth::v1::layer_progress::Phase;
use berth_proto::berth::v1::{Image, PullRequest};
use berth_types::Reference;
use clap::Args;

use super::missing;
use crate::client::Daemon;
use crate::failure::{Failure, Outcome};
use crate::output::{complain, say};
use crate::progress::Progress;

/// Download an image from a registry
#[derive(Args, Debug)]
pub(crate) struct Pull {
    /// Only print the image's name
    #[arg(short, long)]
    quiet: bool,
    /// The platform to fetch: os/architecture[/variant]
    #[arg(long, default_value = "", hide_default_value = true)]
    platform: String,
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

impl Pull {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let teller = if self.quiet { Teller::Silent } else { Teller::Stdout };
        let image = fetch(daemon, &self.image, self.platform, teller).await?;
        say(&image.name);
        Ok(0)
    }
}

/// Where a pull is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Teller {
    /// Nowhere.
    Silent,
    /// It is what was asked for.
    Stdout,
    /// Beside some other output.
    Stderr,
}

impl Teller {
    fn tell(self, line: impl Display) {
        match self {
            Self::Silent => {}
            Self::Stdout => say(line),
            Self::Stderr => complain(line),
        }
    }

    fn progress(self) -> Option<Progress> {
        match self {
            Self::Silent => None,
            Self::Stdout => Some(Progress::on_stdout()),
            Self::Stderr => Some(Progress::on_stderr()),
        }
    }
}

/// Fetches an image and tells of it in Docker's words.
pub(crate) async fn fetch(
    daemon: &Daemon,
    image: &str,
    platform: String,
    teller: Teller,
) -> Outcome<Image> {
    let reference: Reference = image.parse().map_err(|error| Failure::new(format!("{error}")))?;
    let wanted = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.to_owned(),
        (None, None) => {
            if teller == Teller::Stdout {
                teller.tell("Using default tag: latest");
            }
            "latest".to_owned()
        }
    };
    teller.tell(format_args!("{wanted}: Pulling from {}", reference.path()));
    let request = PullRequest { reference: image.to_owned(), platform, credentials: None };
    let mut messages = daemon.images().await?.pull(request).await?.into_inner();
    let mut progress = teller.progress();
    let (mut image, mut is_new) = (None, false);
    while let Some(message) = messages.message().await? {
        is_new |= message.changed;
        is_new |= message.layers.iter().any(|layer| layer.phase() != Phase::Exists);
        if let Some(progress) = &mut progress {
            progress.update(&message);
        }
        image = message.image.or(image);
    }
    drop(progress);
    let image = image.ok_or_else(|| missing("image"))?;
    let status = if is_new { "Downloaded newer image for" } else { "Image is up to date for" };
    let named = shown(&reference);
    teller.tell(format_args!("Digest: {}\nStatus: {status} {named}", image.digest));
    Ok(image)
}

/// A reference as Docker shows it, with the tag that it stands for.
pub(crate) fn shown(reference: &Reference) -> String {
    reference.clone().canonical().familiar()
}
