//! `berth images`

use berth_proto::berth::v1::{Image, ListImagesRequest};
use clap::Args;
use serde_json::{Value, json};

use crate::client::Daemon;
use crate::failure::Outcome;
use crate::human;
use crate::output::say;
use crate::progress::short;
use crate::table::{Fields, Format};

const USUAL: &[&str] = &["Repository", "Tag", "ID", "CreatedSince", "Size"];
const WITH_DIGESTS: &[&str] = &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"];
const TITLES: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
    ("Platform", "PLATFORM"),
];

/// List images
#[derive(Args, Debug)]
pub(crate) struct Images {
    /// Only print ids
    #[arg(short, long)]
    quiet: bool,
    /// Don't shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// How to print the list: table, json, or a template of Go's, such as {{.Repository}}
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Only this repository, or repository and tag
    repository: Option<String>,
}

/// An image's name taken apart for display.
struct Name {
    repository: String,
    tag: String,
}

impl Images {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let response = daemon.images().await?.list(ListImagesRequest {}).await?.into_inner();
        let mut images: Vec<(Name, Image)> =
            response.images.into_iter().map(|image| (name(&image.name), image)).collect();
        if let Some(wanted) = &self.repository {
            let wanted = name(wanted);
            let any_tag = !self.repository.as_deref().is_some_and(has_tag);
            images.retain(|(name, _)| {
                name.repository == wanted.repository && (any_tag || name.tag == wanted.tag)
            });
        }
        if self.quiet {
            for (_, image) in &images {
                say(self.id(image));
            }
            return Ok(0);
        }
        let objects: Vec<_> = images.iter().map(|(name, image)| self.object(name, image)).collect();
        let usual = if self.digests { WITH_DIGESTS } else { USUAL };
        Fields { usual, titles: TITLES }.print(&self.format, &objects).map(|()| 0)
    }

    /// Docker's field names.
    fn object(&self, name: &Name, image: &Image) -> Value {
        json!({
            "Repository": name.repository,
            "Tag": name.tag,
            "ID": self.id(image),
            "Digest": image.digest,
            "CreatedAt": human::rfc3339(image.created_at),
            "CreatedSince": human::ago(image.created_at),
            "Size": human::size(image.size),
            "Platform": image.platform,
        })
    }

    fn id<'a>(&self, image: &'a Image) -> &'a str {
        if self.no_trunc { &image.id } else { short(&image.id) }
    }
}

/// Repository and tag as Docker's users write them, without the default registry.
fn name(full: &str) -> Name {
    match full.parse::<berth_types::Reference>() {
        Ok(reference) => Name {
            repository: reference.familiar_name(),
            tag: reference.tag().unwrap_or("<none>").to_owned(),
        },
        // Another client may name an image as it likes.
        Err(_) => Name { repository: full.to_owned(), tag: "<none>".to_owned() },
    }
}

fn has_tag(typed: &str) -> bool {
    typed.rsplit('/').next().is_some_and(|last| last.contains(':'))
}
