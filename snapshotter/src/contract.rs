//! The contract of every snapshotter.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;
use berth_types::labels::Labels;
use berth_types::{Digest, Error, Fault, Result};

/// On a snapshot that is prepared: its changes need not survive a crash of the machine, which
/// makes it cheaper to write and to unmount. The next boot finds it gone. The kernel takes it only
/// once: overlayfs refuses to mount a volatile upper directory again.
pub const VOLATILE: &str = "berth.io/snapshot.volatile";

/// What a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// A parent, read-only.
    View,
    /// Writable.
    Active,
    /// Immutable, and a parent for others.
    Committed,
}

/// A snapshot's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What it is.
    pub kind: Kind,
    /// Its key.
    pub key: String,
    /// The key of its parent; empty for none.
    pub parent: String,
    /// What clients put on it.
    pub labels: Labels,
    /// When it was prepared, or committed.
    pub created: SystemTime,
    /// When its labels last changed.
    pub updated: SystemTime,
}

/// What a snapshot takes on disk beyond its parents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Allocated bytes, files with several links counted once.
    pub size: u64,
    /// Files, directories and other inodes.
    pub inodes: u64,
}

/// One mount of a snapshot, in the terms of mount(8). Where there are several they are made in
/// order on the same target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `bind` or `overlay`.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// As after `-o`.
    pub options: Vec<String>,
}

/// What a new active snapshot or view is like.
#[derive(Clone, Debug, Default)]
pub struct PrepareOptions {
    /// Labels, which commit does not inherit.
    pub labels: Labels,
}

/// What a commit says beyond the names.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// Labels of the committed snapshot.
    pub labels: Labels,
    /// The parent of a snapshot that was prepared without one.
    pub parent: Option<String>,
    /// The usage, where the caller knows it; else it is measured.
    pub usage: Option<Usage>,
    /// What the caller has put where [`Snapshotter::image`] says. The snapshot's files don't count
    /// then.
    pub image: Option<Image>,
    /// The caller has synced the snapshot's files. Otherwise the commit does.
    pub synced: bool,
}

/// An image that a caller has written, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Files, directories and other inodes in it.
    pub inodes: u64,
    /// The digest of its bytes.
    pub checksum: Digest,
}

/// A change of labels.
pub type Relabel = Box<dyn FnOnce(&mut Labels) + Send>;

/// Keeps snapshots. What a method acknowledged survives a power cut, but for the content of
/// snapshots that are not committed, which is the filesystem's to keep.
///
/// Keys are names as [`crate`] describes them. Errors of every method besides those it names:
/// `NotFound` for a key that names nothing, and the disk's.
#[async_trait]
pub trait Snapshotter: Send + Sync {
    /// The name by which clients choose it, such as `overlayfs`.
    fn name(&self) -> &'static str;

    /// The record of a snapshot.
    async fn stat(&self, key: &str) -> Result<Info>;

    /// Replaces the labels of a snapshot, as `change` makes them from those it has.
    async fn update(&self, key: &str, change: Relabel) -> Result<Info>;

    /// What a snapshot takes on disk, its parents not counted. Measured for active ones.
    async fn usage(&self, key: &str) -> Result<Usage>;

    /// The mounts of an active snapshot or view.
    ///
    /// # Errors
    /// `FailedPrecondition` for a committed one, which is mounted through a view.
    async fn mounts(&self, key: &str) -> Result<Vec<Mount>>;

    /// Makes an active snapshot on `parent`, or on nothing when that is empty.
    ///
    /// # Errors
    /// `AlreadyExists` when the key is taken, `NotFound` without such a parent,
    /// `InvalidArgument` when the parent is not committed.
    async fn prepare(&self, key: &str, parent: &str, options: PrepareOptions)
    -> Result<Vec<Mount>>;

    /// Makes a view of `parent`. Errors as for [`Snapshotter::prepare`].
    async fn view(&self, key: &str, parent: &str, options: PrepareOptions) -> Result<Vec<Mount>>;

    /// Makes an active snapshot immutable under the new key `name`; `key` is gone afterwards.
    ///
    /// # Errors
    /// `AlreadyExists` when `name` is taken, `FailedPrecondition` when `key` is not active or
    /// already has another parent than the one named, `Unimplemented` for a parent that is named
    /// where [`Snapshotter::rebases`] says no.
    async fn commit(&self, name: &str, key: &str, options: CommitOptions) -> Result<()>;

    /// Removes a snapshot and gives its space back, as far as that goes; the rest is left to
    /// [`Snapshotter::cleanup`].
    ///
    /// # Errors
    /// `FailedPrecondition` while it has children.
    async fn remove(&self, key: &str) -> Result<()>;

    /// Removes several, each before the snapshot that it lies on, as by [`Snapshotter::remove`];
    /// each has a result.
    async fn remove_all(&self, keys: &[String]) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            results.push(self.remove(key).await);
        }
        results
    }

    /// All snapshots whose key starts with `prefix`, in the order of their keys.
    async fn list(&self, prefix: &str) -> Result<Vec<Info>>;

    /// Gives back space that removed snapshots still hold.
    async fn cleanup(&self) -> Result<()>;

    /// The directory in which an active snapshot's own changes lie, for those who write a layer
    /// without mounting it.
    async fn changes(&self, key: &str) -> Result<PathBuf>;

    /// Whether a snapshot prepared without a parent can get one at commit. Otherwise layers are
    /// made one on top of the other, each in its parents' merged tree.
    fn rebases(&self) -> bool {
        true
    }

    /// Where the layer of an active snapshot without a parent may be written as one erofs image
    /// instead of files; `None` where layers are files. The image counts once a commit says that
    /// it is there.
    async fn image(&self, _key: &str) -> Result<Option<PathBuf>> {
        Ok(None)
    }

    /// The image of a committed layer, for reading; `None` where layers are not images.
    async fn layer_image(&self, _key: &str) -> Result<Option<File>> {
        Ok(None)
    }

    /// The roots of a snapshot's layers for reading, its own first.
    async fn layers(&self, key: &str) -> Result<Vec<OwnedFd>>;

    /// What is wrong with what the disk has of a snapshot, its parents not looked at. `None` when
    /// it is as recorded, as far as there is a record of it, and when it goes meanwhile.
    async fn check(&self, _key: &str) -> Result<Option<Fault>> {
        Ok(None)
    }

    /// What is in the snapshots' directories and no record names.
    async fn strays(&self) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    /// Removes what [`strays`](Self::strays) names.
    async fn remove_strays(&self) -> Result<()> {
        Ok(())
    }

    /// Puts what the committed snapshot `with` has in the place of what `key` has, which is damaged
    /// or gone: `with` is gone afterwards, record and children of `key` stay. What is mounted of
    /// the old files stays so.
    ///
    /// # Errors
    /// `FailedPrecondition` unless both are committed on the same parent.
    async fn replace(&self, key: &str, _with: &str) -> Result<()> {
        let name = self.name();
        Err(Error::unimplemented(format!("snapshotter {name} can't replace snapshot {key:?}")))
    }
}
