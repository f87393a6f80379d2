//! From what a user typed to an image.

use berth_proto::containerd::services::images::v1::Image as Record;
use berth_pull::{Progress, Resolved};
use berth_types::{Error, Kind, Platform, Reference, Result};

use super::{Images, no_such_image, target};
use crate::progress::Listener;

/// An image that containers can be made of.
pub(crate) struct Obtained {
    /// Its name.
    pub(crate) name: String,
    /// What it is on this machine.
    pub(crate) resolved: Resolved,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Always,
    Missing,
    Never,
}

impl Policy {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "always" => Ok(Self::Always),
            "" | "missing" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            _ => Err(Error::invalid_argument(format!(
                "invalid pull option: {text:?}: must be one of \"always\", \"missing\" or \"never\""
            ))),
        }
    }
}

impl Images {
    /// The image for a new container, fetched by the policy `pull`.
    ///
    /// # Errors
    /// `NotFound` when there is none and none may be fetched; those of
    /// [`berth_pull::Puller::pull`].
    pub(crate) async fn obtain(
        &self,
        text: &str,
        pull: &str,
        listener: &Listener,
    ) -> Result<Obtained> {
        let policy = Policy::parse(pull)?;
        let found = if policy == Policy::Always { None } else { self.find(text).await? };
        let record = match found {
            Some(record) => record,
            None if policy == Policy::Never => return Err(no_such_image(text)),
            None => self.fetch(text, Platform::host(), Default::default(), listener).await?,
        };
        let resolved = self.resolve(&record).await?;
        Ok(Obtained { name: record.name, resolved })
    }

    /// Unpacks an image whose content is there, as after another client's fetch, by `snapshotter`.
    ///
    /// # Errors
    /// Those of [`berth_pull::Puller::unpack`].
    pub(crate) async fn unpack(&self, image: &Obtained, snapshotter: &str) -> Result<()> {
        let puller = &self.engine.parts().puller;
        let (namespace, platform) = (self.scope.namespace(), Platform::host());
        let manifest = &image.resolved.manifest;
        // Nothing is pulled, so nothing is told.
        let unpacked =
            puller.unpack(namespace, manifest, &platform, snapshotter, Progress::silent());
        unpacked.await.map(drop)
    }

    /// The image of a name in Docker's notation, of the very name, or of an id.
    ///
    /// # Errors
    /// `InvalidArgument` for what can be neither name nor id, or for the beginning of several ids.
    pub(crate) async fn find(&self, text: &str) -> Result<Option<Record>> {
        let named = match text.parse::<Reference>() {
            Ok(reference) => self.named(&reference.canonical().to_string())?,
            Err(error) if !may_be_id(text) => return Err(error),
            Err(_) => None,
        };
        match named {
            Some(record) => Ok(Some(record)),
            None => match self.named(text)? {
                None if may_be_id(text) => self.with_id(text).await,
                found => Ok(found),
            },
        }
    }

    pub(super) fn named(&self, name: &str) -> Result<Option<Record>> {
        match self.scope.images().get(name) {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// An image whose id begins so.
    async fn with_id(&self, prefix: &str) -> Result<Option<Record>> {
        let prefix = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        let mut found: Option<(Record, String)> = None;
        for record in self.scope.images().list(&[])? {
            let id = self.id(&record).await?;
            if !id.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(prefix)) {
                continue;
            }
            match &found {
                Some((_, known)) if *known != id => {
                    return Err(Error::invalid_argument(format!(
                        "multiple images found with the prefix {prefix}: give more digits"
                    )));
                }
                Some(_) => {}
                None => found = Some((record, id)),
            }
        }
        Ok(found.map(|(record, _)| record))
    }

    /// Docker's id of an image: the digest of its config; of one without content here, the digest
    /// of what it points at.
    pub(super) async fn id(&self, record: &Record) -> Result<String> {
        match self.present(record, &Platform::host()).await {
            Ok(resolved) => Ok(resolved.config.digest.to_string()),
            Err(_) => Ok(target(record)?.digest.to_string()),
        }
    }
}

fn may_be_id(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    (1..=64).contains(&hex.len()) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
