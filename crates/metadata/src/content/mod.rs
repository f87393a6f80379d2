//! The blobs that a namespace may see.
//!
//! Blobs are shared between namespaces as in containerd's default policy: who names the digest
//! of a blob that is there, and its right size, gets it without sending it again. By the other
//! policy namespaces are isolated: they share only what a namespace's label opens to all.

mod adopt;
mod ingest;
mod replace;
mod writer;

use berth_content::Reader;
use berth_proto::containerd::services::content::v1::Info;
use berth_types::filter::{Fields, Filter};
use berth_types::{Digest, Error, Result};

use crate::leases::{self, Resource};
use crate::rows::CONTENT;
use crate::{Scope, labels};

pub(crate) use adopt::adopt;
pub(crate) use writer::blocking;
pub use writer::{ContentWriter, WriterRequest};

/// The blobs and ingests of a namespace.
pub struct Content<'a>(pub(crate) &'a Scope);

impl Content<'_> {
    /// The record of a blob.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn info(&self, digest: &Digest) -> Result<Info> {
        self.0.read(|transaction| CONTENT.get(transaction, self.0.namespace(), digest.as_str()))
    }

    /// The blobs that pass `filters`, which know `digest` and `labels.*`.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed filter.
    pub fn list(&self, filters: &[String]) -> Result<Vec<Info>> {
        let filter = Filter::parse(filters)?;
        let passes = |info: &Info| filter.matches(&View(info));
        self.0.read(|transaction| CONTENT.list(transaction, self.0.namespace(), passes))
    }

    /// Opens a blob. Blocks on the disk.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` when the record is there and the blob is not.
    pub fn reader(&self, digest: &Digest) -> Result<Reader> {
        self.info(digest)?;
        self.0.metadata().content.reader(digest).map_err(|error| match error.kind() {
            berth_types::Kind::NotFound => Error::data_loss(format!(
                "the bytes of content {digest} are gone: remove the image and pull it again"
            )),
            _ => error,
        })
    }

    /// Lets the scope's lease keep a blob that is there, and returns its record.
    ///
    /// # Errors
    /// `NotFound`, also when the lease is gone.
    pub async fn adopt(&self, digest: &Digest) -> Result<Info> {
        let (scope, digest) = (self.0.clone(), digest.clone());
        self.0
            .write(move |transaction| {
                let info = CONTENT.get(transaction, scope.namespace(), digest.as_str())?;
                leases::keep(transaction, &scope, &Resource::content(&digest))?;
                Ok(info)
            })
            .await
    }

    /// Changes labels by the field mask `paths` (`labels`, `labels.KEY`; none replaces all).
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for any other path and for long labels.
    pub async fn update(&self, info: Info, paths: Vec<String>) -> Result<Info> {
        let ns = self.0.namespace().to_owned();
        self.0
            .write(move |transaction| {
                let mut updated = CONTENT.get(transaction, &ns, &info.digest)?;
                labels::update("content", &paths, &mut updated.labels, &info.labels)?;
                updated.updated_at = labels::now();
                CONTENT.put(transaction, &ns, &info.digest, &updated)?;
                Ok(updated)
            })
            .await
    }

    /// Takes a blob from the namespace. Its bytes go when no namespace has it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, digest: &Digest) -> Result<()> {
        let (scope, digest) = (self.0.clone(), digest.clone());
        self.0
            .write_from_reserve(move |transaction| {
                CONTENT.delete(transaction, scope.namespace(), digest.as_str())?;
                leases::release(transaction, &scope, &Resource::content(&digest))
            })
            .await?;
        self.0.metadata().trigger();
        Ok(())
    }
}

/// A blob as filters see it.
struct View<'a>(&'a Info);

impl Fields for View<'_> {
    fn field(&self, path: &[String]) -> Option<&str> {
        match path.first()?.as_str() {
            "digest" => Some(&self.0.digest),
            "labels" => labels::field(&path[1..], &self.0.labels),
            _ => None,
        }
    }
}
