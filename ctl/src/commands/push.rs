//! `berth push`

use std::collections::HashMap;

use berth_proto::containerd::types::Descriptor;
use berth_proto::containerd::types::transfer::{ImageStore, OciRegistry, Progress};
use berth_types::Reference;
use clap::Args;

use crate::client::Daemon;
use crate::failure::{Failure, Outcome};
use crate::output::say;
use crate::progress::short;
use crate::transfer::{Stream, any, transfer};

/// Upload an image to a registry
#[derive(Args, Debug)]
pub(crate) struct Push {
    /// Only print the image's name
    #[arg(short, long)]
    quiet: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

impl Push {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let typed: Reference =
            self.image.parse().map_err(|error| Failure::new(format!("{error}")))?;
        if typed.digest().is_some() {
            return Err(Failure::new("cannot push a digest reference"));
        }
        if !self.quiet {
            if typed.tag().is_none() {
                say("Using default tag: latest");
            }
            say(format_args!(
                "The push refers to repository [{}/{}]",
                typed.domain(),
                typed.path()
            ));
        }
        let name = typed.canonical().to_string();
        let source = ImageStore { name: name.clone(), ..Default::default() };
        let destination = OciRegistry { reference: name.clone(), resolver: None };
        let progress = Stream::open(daemon).await?;
        let id = progress.id();
        let mut teller = Teller { quiet: self.quiet, told: HashMap::new(), pushed: None };
        let (done, watched) = tokio::join!(
            transfer(daemon, any(&source), any(&destination), id),
            progress.watch(|progress| teller.tell(progress)),
        );
        done?;
        watched?;
        match teller.pushed {
            Some(Descriptor { digest, size, .. }) if !self.quiet => {
                let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
                say(format_args!("{tag}: digest: {digest} size: {size}"));
            }
            _ => say(&name),
        }
        Ok(0)
    }
}

/// Tells of a push in Docker's words, a line for each change.
struct Teller {
    quiet: bool,
    told: HashMap<String, &'static str>,
    pushed: Option<Descriptor>,
}

impl Teller {
    fn tell(&mut self, progress: Progress) {
        let words = match progress.event.as_str() {
            "pushed" => {
                self.pushed = progress.desc;
                return;
            }
            "uploading" => "Pushing",
            "complete" => "Pushed",
            "already exists" => "Layer already exists",
            _ => return,
        };
        let Some(Descriptor { digest, .. }) = progress.desc else { return };
        if self.told.insert(digest.clone(), words) != Some(words) && !self.quiet {
            say(format_args!("{}: {words}", short(&digest)));
        }
    }
}
