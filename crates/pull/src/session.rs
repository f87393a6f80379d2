//! One operation on one image: what it works with, and how it comes by documents.

use std::sync::Arc;

use berth_metadata::{ContentWriter, Scope, WriterRequest};
use berth_registry::Repository;
use berth_types::image::{Descriptor, MAX_SIZE, media_type};
use berth_types::{Digest, Error, Kind, Platform, Result};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::blocking;
use crate::choice::{Choice, Documents, Step, choose};
use crate::discard::{FROM, archive, is_there};
use crate::lease::may_pass;
use crate::progress::Progress;
use crate::puller::Puller;
use crate::record::{self, BlobLabels};
use crate::resolved::{Resolved, read_small};
use crate::restore::Login;

/// Which blobs of layers are to be in the content store in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// All.
    Keep,
    /// None: what is unpacked needs no blob.
    Discard,
    /// Those that are there now.
    Leave,
    /// What an earlier operation on the image decided: all that its manifest keeps, none where it
    /// let go of them.
    Restore,
}

/// One operation on one image.
pub(crate) struct Session {
    pub(crate) puller: Puller,
    pub(crate) scope: Scope,
    /// Where what is missing comes from; without it nothing may be missing.
    pub(crate) repository: Option<Repository>,
    pub(crate) snapshotter: String,
    pub(crate) policy: Policy,
    pub(crate) progress: Progress,
    /// The turns of the repository's registry.
    pub(crate) downloads: Arc<Semaphore>,
    /// Ends the layers' work, when one of them has failed or all operations are to end.
    pub(crate) stop: CancellationToken,
}

impl Session {
    /// Brings the image at `target` into the stores, unpacked, and labels its blobs so that they
    /// stay together.
    pub(crate) async fn realize(
        &mut self,
        target: &Descriptor,
        platform: &Platform,
    ) -> Result<Resolved> {
        let Choice { image, way } = choose(self, target, platform).await?;
        for Step { index, entries } in way {
            record::label(&self.scope, &index, record::keeps_entries(&entries)).await?;
        }
        if self.policy == Policy::Restore {
            self.policy = self.earlier_policy(&image)?;
        }
        let mut kept = Vec::new();
        for (position, layer) in image.layers.iter().enumerate() {
            if match self.policy {
                Policy::Keep => true,
                Policy::Discard | Policy::Restore => false,
                Policy::Leave => is_there(&self.scope, &layer.blob)?,
            } {
                kept.push((position, &layer.blob.digest));
            }
        }
        let parts = record::keeps_parts(&image.config.digest, kept.into_iter());
        record::label(&self.scope, &image.manifest.digest, parts).await?;
        if self.policy == Policy::Leave {
            self.bring_back(&image).await?;
        }
        self.unpack(&image).await?;
        if let Some(chain_id) = image.chain_id() {
            let kept = [record::keeps_snapshot(&self.snapshotter, chain_id)].into();
            record::label(&self.scope, &image.config.digest, kept).await?;
        }
        if self.policy == Policy::Discard {
            self.discard(&image).await?;
        }
        Ok(image)
    }

    /// What was decided for the blobs of an image that was here before.
    fn earlier_policy(&self, image: &Resolved) -> Result<Policy> {
        let labels = self.scope.content().info(&image.manifest.digest)?.labels;
        Ok(match (record::keeps_layers(&labels), labels.contains_key(FROM)) {
            (true, _) => Policy::Keep,
            (false, true) => Policy::Discard,
            // Nothing is left that says it.
            (false, false) => self.puller.policy_of_pulls(),
        })
    }

    /// Brings back the blobs of layers that have to be unpacked and are nowhere else.
    async fn bring_back(&self, image: &Resolved) -> Result<()> {
        let there = image.layers.len() - self.missing(&image.layers).await?.len();
        for (position, layer) in image.layers.iter().enumerate().skip(there) {
            if is_there(&self.scope, &layer.blob)? {
                continue;
            }
            if !matches!(archive(&self.scope, layer).await, Ok(Some(_))) {
                self.puller.restore(&self.scope, image, position, &Login::default()).await?;
            }
        }
        Ok(())
    }

    /// Whether the namespace has a blob. The lease keeps it then.
    pub(crate) async fn has(&self, digest: &Digest) -> Result<bool> {
        match self.scope.content().adopt(digest).await {
            Ok(_) => {
                record::label(&self.scope, digest, self.source_label()).await?;
                Ok(true)
            }
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The label that says where blobs of this operation come from.
    pub(crate) fn source_label(&self) -> BlobLabels {
        let sources = self.repository.iter();
        sources.map(|from| record::source(from.domain(), from.path())).collect()
    }

    /// Where a missing blob comes from.
    pub(crate) fn repository_for(&self, blob: &Digest) -> Result<&Repository> {
        self.repository.as_ref().ok_or_else(|| is_missing(blob))
    }

    /// The writer of a missing blob; at its end when the blob came from elsewhere meanwhile.
    pub(crate) async fn writer(&self, blob: &Descriptor) -> Result<ContentWriter> {
        let request = WriterRequest {
            reference: ingest(&blob.digest),
            total: blob.size,
            expected: Some(blob.digest.clone()),
        };
        self.scope.content().writer(request).await
    }

    /// Makes a blob of what was written, or drops it when it is not what it should be.
    pub(crate) async fn commit(
        &self,
        writer: ContentWriter,
        blob: &Descriptor,
        mut labels: BlobLabels,
    ) -> Result<()> {
        labels.extend(self.source_label());
        match writer.commit(blob.size, Some(blob.digest.clone()), labels).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == Kind::AlreadyExists => Ok(()),
            Err(error) => {
                self.give_up(&blob.digest, &error).await;
                Err(error)
            }
        }
    }

    /// Drops what there is of a blob, unless it is worth resuming after `error`.
    pub(crate) async fn give_up(&self, digest: &Digest, error: &Error) {
        if may_pass(error) {
            return;
        }
        match self.scope.content().abort(&ingest(digest)).await {
            Err(error) if error.kind() != Kind::NotFound => {
                tracing::warn!(%error, %digest, "what was fetched of a blob is left behind");
            }
            _ => {}
        }
    }

    async fn fetch_document(&self, described: &Descriptor) -> Result<Vec<u8>> {
        let kind = &described.media_type;
        let repository = self.repository_for(&described.digest)?;
        if media_type::is_manifest(kind) || media_type::is_index(kind) {
            return repository.manifest(described).await;
        }
        let mut blob = repository.blob(described, 0);
        let mut all = Vec::new();
        while let Some(bytes) = blob.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

impl Documents for Session {
    /// The document from the content store, where it is put first if it is missing.
    async fn document(&self, described: &Descriptor) -> Result<Vec<u8>> {
        let digest = &described.digest;
        if described.size > MAX_SIZE {
            return Err(Error::invalid_argument(format!(
                "image document {digest} has {} bytes, the most is {MAX_SIZE}",
                described.size
            )));
        }
        let _alone = self.puller.blobs().lock(digest.clone()).await;
        if !self.has(digest).await? {
            let mut writer = self.writer(described).await?;
            if writer.status().offset != described.size || writer.digest() != *digest {
                let bytes = self.puller.unless_stopped(self.fetch_document(described)).await?;
                writer = blocking(move || {
                    writer.truncate(0)?;
                    writer.write(&bytes)?;
                    Ok(writer)
                })
                .await?;
            }
            self.commit(writer, described, BlobLabels::new()).await?;
        }
        read_small(&self.scope, digest)
    }
}

/// A blob is not here, and there is nowhere to fetch it from.
pub(crate) fn is_missing(blob: &Digest) -> Error {
    Error::not_found(format!("content {blob} of the image is missing: pull it again"))
}

/// The name of a blob's ingest.
pub(crate) fn ingest(digest: &Digest) -> String {
    format!("pull-{digest}")
}
