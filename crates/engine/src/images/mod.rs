//! Images by Docker's references and ids, one file for each verb.

mod describe;
mod find;
mod inspect;
mod list;
mod pull;
mod remove;
mod tag;

use berth_metadata::Scope;
use berth_proto::containerd::services::images::v1::Image as Record;
use berth_pull::Resolved;
use berth_types::image::Descriptor;
use berth_types::{Error, Platform, Result};

use crate::Engine;

pub(crate) use find::Obtained;

/// The images of a namespace.
#[derive(Clone)]
pub struct Images {
    pub(crate) engine: Engine,
    pub(crate) scope: Scope,
}

impl Images {
    /// What a record stands for on this machine.
    ///
    /// # Errors
    /// `NotFound` when content is missing, or there is nothing for this machine's platform.
    async fn resolve(&self, record: &Record) -> Result<Resolved> {
        berth_pull::read(&self.scope, &target(record)?, &Platform::host()).await
    }

    /// What is here of a record: for `platform`, or else for any other.
    ///
    /// # Errors
    /// `NotFound` when there is nothing.
    async fn present(&self, record: &Record, platform: &Platform) -> Result<Resolved> {
        berth_pull::read_present(&self.scope, &target(record)?, platform).await
    }
}

/// What a record points at.
pub(crate) fn target(record: &Record) -> Result<Descriptor> {
    let target = record.target.clone().unwrap_or_default();
    let damaged = |what: &str| Error::data_loss(format!("the record of {}: {what}", record.name));
    let digest = target.digest.parse().map_err(|_| damaged("its target has no digest"))?;
    let size = u64::try_from(target.size).map_err(|_| damaged("its target has no size"))?;
    Ok(Descriptor::new(target.media_type, digest, size))
}

/// A name as Docker shows it.
fn familiar(name: &str) -> String {
    match name.parse::<berth_types::Reference>() {
        Ok(reference) => reference.familiar(),
        // Another client may name an image as it likes.
        Err(_) => name.to_owned(),
    }
}

/// The first digits of a digest, as Docker shows ids.
fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

fn no_such_image(text: &str) -> Error {
    Error::not_found(format!("No such image: {text}"))
}
