//! A namespace's snapshots: the snapshotter's, under keys that start with the namespace.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use berth_snapshotter::{CommitOptions, Info, Mount, PrepareOptions, Snapshotter, Usage};
use berth_types::filter::Filter;
use berth_types::labels::{self as names, Labels};
use berth_types::{Error, Fault, Result};
use tokio::sync::Notify;

use crate::leases::{self, Resource};
use crate::{Scope, labels};

/// On a snapshot that is prepared: the committed snapshot that it is for. If that is there
/// already, preparing fails with `AlreadyExists`.
const TARGET: &str = "containerd.io/snapshot.ref";

/// The snapshots of a namespace in one snapshotter. Keys are those of the namespace.
pub struct Snapshots<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) backend: Arc<dyn Snapshotter>,
}

impl Snapshots<'_> {
    /// The record of a snapshot.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stat(&self, key: &str) -> Result<Info> {
        Ok(self.local(self.told(self.backend.stat(&self.global(key)).await)?))
    }

    /// Lets the scope's lease keep a snapshot that is there, and returns its record. Unlike after
    /// [`stat`](Self::stat), it can't be collected before it is used.
    ///
    /// # Errors
    /// `NotFound`, also when the lease is gone.
    pub async fn adopt(&self, key: &str) -> Result<Info> {
        self.keep(&[key]).await?;
        self.stat(key).await
    }

    /// Changes labels by the field mask `paths` (`labels`, `labels.KEY`; none replaces all).
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for any other path and for long labels.
    pub async fn update(&self, key: &str, from: Labels, paths: Vec<String>) -> Result<Info> {
        let mut from: labels::Map = from.into_iter().collect();
        labels::update("snapshot", &paths, &mut labels::Map::new(), &from)?;
        labels::check(&mut from)?;
        let change = move |to: &mut Labels| {
            let mut map: labels::Map = std::mem::take(to).into_iter().collect();
            // The same paths and labels were accepted above.
            if labels::update("snapshot", &paths, &mut map, &from).is_ok() {
                *to = map.into_iter().collect();
            }
        };
        let updated = self.backend.update(&self.global(key), Box::new(change)).await;
        Ok(self.local(self.told(updated)?))
    }

    /// What a snapshot takes on disk, its parents not counted.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn usage(&self, key: &str) -> Result<Usage> {
        self.told(self.backend.usage(&self.global(key)).await)
    }

    /// The mounts of an active snapshot or view.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` for a committed one.
    pub async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        self.told(self.backend.mounts(&self.global(key)).await)
    }

    /// Makes an active snapshot on `parent`, or on nothing when that is empty.
    ///
    /// # Errors
    /// `AlreadyExists` when the key is taken or its target is there; `NotFound` without the
    /// parent or the lease; `InvalidArgument` when the parent is not committed.
    pub async fn prepare(&self, key: &str, parent: &str, with: Labels) -> Result<Vec<Mount>> {
        let (key, parent, options) = self.ready(key, parent, with).await?;
        self.told(self.backend.prepare(&key, &parent, options).await)
    }

    /// Makes a view of `parent`.
    ///
    /// # Errors
    /// As for [`prepare`](Self::prepare).
    pub async fn view(&self, key: &str, parent: &str, with: Labels) -> Result<Vec<Mount>> {
        let (key, parent, options) = self.ready(key, parent, with).await?;
        self.told(self.backend.view(&key, &parent, options).await)
    }

    /// Makes an active snapshot immutable under the new key `name`. A parent in `options` is a
    /// key of the namespace.
    ///
    /// # Errors
    /// `AlreadyExists` when `name` is taken; `NotFound`; `FailedPrecondition` when `key` is not
    /// active, or has another parent than the one named.
    pub async fn commit(&self, name: &str, key: &str, mut options: CommitOptions) -> Result<()> {
        validate(name, &options.labels)?;
        self.keep(&[name, options.parent.as_deref().unwrap_or_default()]).await?;
        options.parent = match options.parent {
            Some(parent) if !parent.is_empty() => Some(self.global(&parent)),
            _ => None,
        };
        let (to, from) = (self.global(name), self.global(key));
        self.told(self.backend.commit(&to, &from, options).await)?;
        self.release(key).await
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` while it has children.
    pub async fn remove(&self, key: &str) -> Result<()> {
        self.told(self.backend.remove(&self.global(key)).await)?;
        self.release(key).await
    }

    /// The snapshots that pass `filters`, which know `kind`, `name`, `parent` and `labels.*`.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed filter.
    pub async fn list(&self, filters: &[String]) -> Result<Vec<Info>> {
        let filter = Filter::parse(filters)?;
        let all = self.backend.list(&format!("{}/", self.scope.namespace())).await?;
        let ours = all.into_iter().map(|info| self.local(info));
        Ok(ours.filter(|info| filter.matches(info)).collect())
    }

    /// Gives back space that removed snapshots still hold.
    ///
    /// # Errors
    /// Those of the snapshotter.
    pub async fn cleanup(&self) -> Result<()> {
        self.backend.cleanup().await
    }

    /// The directory in which an active snapshot's own changes lie; see
    /// [`Snapshotter::changes`].
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` unless it is active.
    pub async fn changes(&self, key: &str) -> Result<PathBuf> {
        self.backend.changes(&self.global(key)).await
    }

    /// Whether a snapshot can get its parent at commit; see [`Snapshotter::rebases`].
    pub fn rebases(&self) -> bool {
        self.backend.rebases()
    }

    /// Where an image of an active snapshot's layer may be written; see [`Snapshotter::image`].
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` unless it is active.
    pub async fn image(&self, key: &str) -> Result<Option<PathBuf>> {
        self.backend.image(&self.global(key)).await
    }

    /// The image of a committed layer, for reading; see [`Snapshotter::layer_image`].
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn layer_image(&self, key: &str) -> Result<Option<File>> {
        self.backend.layer_image(&self.global(key)).await
    }

    /// The roots of a snapshot's layers for reading, its own first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn layers(&self, key: &str) -> Result<Vec<OwnedFd>> {
        self.backend.layers(&self.global(key)).await
    }

    /// What is wrong with what the disk has of a snapshot; see [`Snapshotter::check`].
    ///
    /// # Errors
    /// Those of the snapshotter.
    pub async fn check(&self, key: &str) -> Result<Option<Fault>> {
        self.told(self.backend.check(&self.global(key)).await)
    }

    /// Puts what `with` has in the place of what `key` has; see [`Snapshotter::replace`].
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` unless both are committed on the same parent.
    pub async fn replace(&self, key: &str, with: &str) -> Result<()> {
        self.told(self.backend.replace(&self.global(key), &self.global(with)).await)?;
        self.release(with).await
    }

    /// Checks and keeps what a new snapshot needs; returns the snapshotter's keys.
    async fn ready(
        &self,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<(String, String, PrepareOptions)> {
        validate(key, &labels)?;
        let target = labels.get(TARGET).map_or("", String::as_str);
        self.keep(&[key, target]).await?;
        self.settle(parent).await;
        if !target.is_empty() && self.stat(target).await.is_ok() {
            let error = format!("target snapshot {target:?}: already exists");
            return Err(Error::already_exists(error));
        }
        let parent = if parent.is_empty() { String::new() } else { self.global(parent) };
        Ok((self.global(key), parent, PrepareOptions { labels }))
    }

    /// Lets the scope's lease keep `keys` and waits until none of them is being collected. From
    /// then on none of them will be, while the lease lasts.
    async fn keep(&self, keys: &[&str]) -> Result<()> {
        let keys = keys.iter().filter(|key| !key.is_empty());
        if self.scope.lease().is_some() {
            let scope = self.scope.clone();
            let name = self.backend.name();
            let kept: Vec<_> = keys.clone().map(|key| Resource::snapshot(name, key)).collect();
            self.scope
                .write(move |transaction| {
                    for resource in &kept {
                        leases::keep(transaction, &scope, resource)?;
                    }
                    Ok(())
                })
                .await?;
        }
        for key in keys {
            self.settle(key).await;
        }
        Ok(())
    }

    async fn settle(&self, key: &str) {
        let node = Condemned::node(self.backend.name(), &self.global(key));
        self.scope.metadata().condemned.settle(&node).await;
    }

    async fn release(&self, key: &str) -> Result<()> {
        if self.scope.lease().is_none() {
            return Ok(());
        }
        let scope = self.scope.clone();
        let resource = Resource::snapshot(self.backend.name(), key);
        self.scope
            .write_from_reserve(move |transaction| leases::release(transaction, &scope, &resource))
            .await
    }

    /// The snapshotter's name for a key.
    fn global(&self, key: &str) -> String {
        format!("{}/{key}", self.scope.namespace())
    }

    /// An outcome whose error names the namespace's keys.
    fn told<T>(&self, outcome: Result<T>) -> Result<T> {
        let prefix = format!("\"{}/", self.scope.namespace());
        outcome.map_err(|error| error.renaming(&prefix, "\""))
    }

    /// A record with the namespace's keys.
    fn local(&self, mut info: Info) -> Info {
        for key in [&mut info.key, &mut info.parent] {
            if let Some((_, local)) = key.split_once('/') {
                *key = local.to_owned();
            }
        }
        info
    }
}

/// The snapshots that are being collected. Who needs one of them waits and then finds it gone,
/// instead of finding it and losing it.
#[derive(Default)]
pub(crate) struct Condemned {
    nodes: Mutex<HashSet<String>>,
    fewer: Notify,
}

impl Condemned {
    pub(crate) fn node(snapshotter: &str, global: &str) -> String {
        format!("{snapshotter} {global}")
    }

    pub(crate) fn add(&self, nodes: impl IntoIterator<Item = String>) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).extend(nodes);
    }

    pub(crate) fn remove(&self, node: &str) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
        self.fewer.notify_waiters();
    }

    pub(crate) fn clear(&self) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.fewer.notify_waiters();
    }

    async fn settle(&self, node: &str) {
        loop {
            // Registered before the check, so that no removal in between is missed.
            let fewer = self.fewer.notified();
            if !self.nodes.lock().unwrap_or_else(PoisonError::into_inner).contains(node) {
                return;
            }
            fewer.await;
        }
    }
}

/// Checks what a new snapshot is to be called and its labels.
fn validate(key: &str, labels: &Labels) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid_argument("snapshot key must not be empty"));
    }
    labels.iter().try_for_each(|(key, value)| names::validate(key, value))
}
