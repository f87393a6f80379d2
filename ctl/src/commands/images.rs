//! `berth images`

use berth_proto::berth::v1::{Image, ListImagesRequest};
use clap::Args;
use serde_json::{Value, json};

use crate::client::Daemon;
use crate::failure::Outcome;
use crate::human;
use crate::output::say;
use crate::progress::short;
use crate::table::{self, Format};

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
    /// How to print the list
    #[arg(long, value_enum, default_value_t)]
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
        } else if self.format == Format::Json {
            table::print_json(images.iter().map(|(name, image)| self.object(name, image)));
        } else {
            self.print(&images);
        }
        Ok(0)
    }

    fn print(&self, images: &[(Name, Image)]) {
        let mut heading = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
        if self.digests {
            heading.insert(2, "DIGEST");
        }
        let row = |(name, image): &(Name, Image)| {
            let mut row = vec![
                name.repository.clone(),
                name.tag.clone(),
                self.id(image).to_owned(),
                created(image),
                human::size(image.size),
            ];
            if self.digests {
                row.insert(2, image.digest.clone());
            }
            row
        };
        table::print(&heading, &images.iter().map(row).collect::<Vec<_>>());
    }

    /// Docker's field names.
    fn object(&self, name: &Name, image: &Image) -> Value {
        json!({
            "Repository": name.repository,
            "Tag": name.tag,
            "ID": self.id(image),
            "Digest": image.digest,
            "CreatedAt": human::rfc3339(image.created_at),
            "CreatedSince": created(image),
            "Size": human::size(image.size),
            "Platform": image.platform,
        })
    }

    fn id<'a>(&self, image: &'a Image) -> &'a str {
        if self.no_trunc { &image.id } else { short(&image.id) }
    }
}

fn created(image: &Image) -> String {
    match image.created_at {
        Some(_) => format!("{} ago", human::since(image.created_at)),
        None => "N/A".to_owned(),
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
