//! Garbage collection: what nothing refers to is removed.
//!
//! As in containerd (`docs/garbage-collection.md` there), roots are images, containers, sandboxes,
//! what leases keep, and blobs and snapshots with the label `containerd.io/gc.root`; an image or lease
//! whose `containerd.io/gc.expire` has passed is none. From them references lead on: an image's
//! target, a container's snapshot, a snapshot's parent, and the labels `containerd.io/gc.ref.*`
//! and `containerd.io/gc.bref.*`.

mod mark;
pub(crate) mod sweep;

use std::collections::BTreeMap;
use std::time::SystemTime;

use berth_snapshotter::Info;
use berth_store::Durability;
use berth_types::{Digest, Kind, Result};

use crate::gc::mark::{Graph, Node};
use crate::snapshots::Condemned;
use crate::{Metadata, content};

/// What a collection removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Expired images, by namespace and name.
    pub images: Vec<(String, String)>,
    /// Expired leases, by namespace and id.
    pub leases: Vec<(String, String)>,
    /// Blobs that a namespace no longer sees, by namespace and digest.
    pub content: Vec<(String, String)>,
    /// Ingests, by namespace and ref.
    pub ingests: Vec<(String, String)>,
    /// Snapshots.
    pub snapshots: Vec<CollectedSnapshot>,
    /// Blobs that no namespace saw, whose bytes are gone.
    pub blobs: Vec<Digest>,
    /// How many bytes those had.
    pub bytes: u64,
}

/// A snapshot that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectedSnapshot {
    /// Its namespace.
    pub namespace: String,
    /// Its snapshotter.
    pub snapshotter: String,
    /// Its key in the namespace.
    pub key: String,
}

/// All snapshots, by snapshotter.
type AllSnapshots = BTreeMap<String, Vec<Info>>;

impl Metadata {
    /// Removes what nothing refers to. Other calls go on meanwhile; another collection waits.
    ///
    /// # Errors
    /// Those of database, disk and snapshotters. What could be removed is removed all the same,
    /// and the rest is left to the next time.
    pub async fn collect(&self) -> Result<Collected> {
        let _alone = self.collecting.lock().await;
        let condemned = self.condemn().await?;
        let result = self.sweep(&condemned).await;
        self.condemned.clear();
        result
    }

    /// Marks the snapshots that nothing refers to now, so that callers who begin to need one of
    /// them wait until its fate is settled.
    async fn condemn(&self) -> Result<Vec<Node>> {
        let snapshots = self.all_snapshots().await?;
        let garbage = self.store.read(|transaction| {
            Ok(Graph::read(transaction, &snapshots, SystemTime::now())?.garbage())
        })?;
        let condemned: Vec<Node> =
            garbage.into_iter().filter(|node| node.as_snapshot().is_some()).collect();
        self.condemned.add(condemned.iter().filter_map(condemned_node));
        Ok(condemned)
    }

    async fn sweep(&self, condemned: &[Node]) -> Result<Collected> {
        let snapshots = self.all_snapshots().await?;
        let listed = snapshots.clone();
        let mut collected = Collected::default();
        let garbage = self
            .store
            .write_from_reserve(Durability::Synced, move |transaction| {
                let garbage = Graph::read(transaction, &listed, SystemTime::now())?.garbage();
                sweep::rows(transaction, &garbage)?;
                Ok(garbage)
            })
            .await?;
        for node in &garbage {
            sweep::report(&mut collected, node);
        }
        let doomed = |node: &&Node| condemned.contains(node);
        let removed = self.remove_snapshots(garbage.iter().filter(doomed), &snapshots).await;
        collected.snapshots = removed.0;
        let files = self.remove_files().await;
        removed.1?;
        (collected.blobs, collected.bytes) = files?;
        Ok(collected)
    }

    /// Removes snapshots, children first. Goes on after a failure and returns the first.
    async fn remove_snapshots(
        &self,
        nodes: impl Iterator<Item = &Node>,
        snapshots: &AllSnapshots,
    ) -> (Vec<CollectedSnapshot>, Result<()>) {
        let (mut removed, mut result) = (Vec::new(), Ok(()));
        let ordered = sweep::children_first(nodes, snapshots);
        for (name, backend) in self.snapshotters.iter() {
            let doomed = ordered.iter().filter_map(|node| match node.as_snapshot() {
                Some((snapshotter, key)) if snapshotter == name => Some((&node.namespace, key)),
                _ => None,
            });
            let doomed: Vec<_> = doomed.collect();
            let keys: Vec<_> =
                doomed.iter().map(|(namespace, key)| format!("{namespace}/{key}")).collect();
            let results = backend.remove_all(&keys).await;
            for ((namespace, key), outcome) in doomed.into_iter().zip(results) {
                match outcome {
                    Ok(()) => removed.push(CollectedSnapshot {
                        namespace: namespace.clone(),
                        snapshotter: name.clone(),
                        key: key.to_owned(),
                    }),
                    // A client removed it, or has just made a child of it.
                    Err(e) if matches!(e.kind(), Kind::NotFound | Kind::FailedPrecondition) => {}
                    Err(error) if result.is_ok() => result = Err(error),
                    Err(error) => tracing::warn!(%error, "a snapshot could not be collected"),
                }
            }
            keys.iter().for_each(|key| self.condemned.remove(&Condemned::node(name, key)));
        }
        (removed, result)
    }

    /// Removes blobs and ingests that no row names.
    async fn remove_files(&self) -> Result<(Vec<Digest>, u64)> {
        let _no_commits = self.files.write().await;
        let (store, content) = (self.store.clone(), self.content.clone());
        content::blocking(move || {
            let named = store.read(sweep::Named::read)?;
            named.remove_others(&content)
        })
        .await
    }

    async fn all_snapshots(&self) -> Result<AllSnapshots> {
        let mut all = AllSnapshots::new();
        for (name, backend) in self.snapshotters.iter() {
            all.insert(name.clone(), backend.list("").await?);
        }
        Ok(all)
    }
}

fn condemned_node(node: &Node) -> Option<String> {
    let (snapshotter, key) = node.as_snapshot()?;
    Some(Condemned::node(snapshotter, &format!("{}/{key}", node.namespace)))
}
