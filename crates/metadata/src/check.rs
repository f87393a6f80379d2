//! What a check asks of the stores, so that it takes nothing for damaged that is on its way.
//!
//! A row goes before its blob does, and comes after it; both happen while `files` is read. So what
//! is seen of the two while it is read or written is one state.

use std::path::PathBuf;

use berth_types::{Digest, Fault, Kind, Result};

use crate::content::blocking;
use crate::gc::sweep::Named;
use crate::rows::{CONTENT, IMAGES};
use crate::{Metadata, Scope};

impl Metadata {
    /// What is wrong with a blob that should have `size` bytes. `None` when it is whole.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn check_blob(&self, digest: &Digest, size: u64) -> Result<Option<Fault>> {
        let (content, looked_at) = (self.content.clone(), digest.clone());
        let found = blocking(move || Ok(content.check(&looked_at, size))).await?;
        let Some(fault) = found else { return Ok(None) };
        let _no_removals = self.files.read().await;
        if fault == Fault::Missing && self.content.info(digest).is_ok() {
            return Ok(None);
        }
        let named = self.store.read(Named::read)?.has_blob(digest);
        // One without a row is looked at by the same rule, and stays until it is collected.
        let there = named || self.content.info(digest).is_ok();
        Ok(there.then_some(fault))
    }

    /// The blobs that no row names: an interrupted pull may have left them to the next one, or
    /// they wait to be collected. With their sizes.
    ///
    /// # Errors
    /// Those of database and disk.
    pub async fn unrecorded_blobs(&self) -> Result<Vec<(Digest, u64)>> {
        let _alone = self.collecting.lock().await;
        let _no_commits = self.files.write().await;
        let (store, content) = (self.store.clone(), self.content.clone());
        blocking(move || {
            let named = store.read(Named::read)?;
            let mut found = Vec::new();
            content.walk(|info| {
                if !named.has_blob(&info.digest) {
                    found.push((info.digest, info.size));
                }
                Ok(())
            })?;
            Ok(found)
        })
        .await
    }

    /// Removes a blob, unless a row names it by now.
    ///
    /// # Errors
    /// Those of database and disk.
    pub async fn remove_unrecorded_blob(&self, digest: &Digest) -> Result<()> {
        let _no_commits = self.files.write().await;
        if self.store.read(Named::read)?.has_blob(digest) {
            return Ok(());
        }
        match self.content.delete(digest) {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// What is in the stores' directories and no record names, but for whole blobs.
    ///
    /// # Errors
    /// Those of database, disk and snapshotters.
    pub async fn strays(&self) -> Result<Vec<PathBuf>> {
        let content = self.content.clone();
        let mut found = blocking(move || content.strays()).await?;
        for snapshotter in self.snapshotters.values() {
            found.extend(snapshotter.strays().await?);
        }
        Ok(found)
    }

    /// Removes what [`strays`](Self::strays) names.
    ///
    /// # Errors
    /// Those of database, disk and snapshotters.
    pub async fn remove_strays(&self) -> Result<()> {
        let content = self.content.clone();
        blocking(move || content.remove_strays()).await?;
        for snapshotter in self.snapshotters.values() {
            snapshotter.remove_strays().await?;
        }
        Ok(())
    }
}

impl Scope {
    /// Whether the image `name`, if it has this `target`, lacks `blob` now: its target, or what the
    /// manifest `holder` keeps by a label. What no label keeps may be dropped.
    ///
    /// # Errors
    /// Those of the database.
    pub fn lacks(
        &self,
        name: &str,
        target: &Digest,
        holder: Option<&Digest>,
        blob: &Digest,
    ) -> Result<bool> {
        self.read(|transaction| {
            let namespace = self.namespace();
            let image = IMAGES.find(transaction, namespace, name)?;
            let target_now = image.and_then(|image| image.target).unwrap_or_default().digest;
            if target_now != target.as_str()
                || CONTENT.find(transaction, namespace, blob.as_str())?.is_some()
            {
                return Ok(false);
            }
            let Some(holder) = holder else { return Ok(true) };
            let holder = CONTENT.find(transaction, namespace, holder.as_str())?;
            Ok(holder.is_some_and(|holder| holder.labels.values().any(|to| to == blob.as_str())))
        })
    }
}
