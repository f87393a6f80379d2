//! Layers made side by side, put on top of each other: what an archive alone doesn't tell is
//! corrected, then all of it is synced and committed.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_archive::{Applied, Lowers, Whiteouts};
use berth_erofs::{Below, Draft};
use berth_snapshotter::{CommitOptions, Image, Mount, mount_image};
use berth_sys::mount;
use berth_types::{Error, Kind, Result, ResultExt};
use rustix::mount::MountAttrFlags;
use tokio::task::JoinHandle;

use crate::blocking;
use crate::chain::{Extract, Place, volatile};
use crate::progress::Phase;
use crate::resolved::Layer;
use crate::session::Session;
use crate::stream::{Made, Outcome, Target};

/// A layer that needs only its commit.
pub(crate) struct Ready<'a> {
    extract: Extract<'a>,
    /// What is known of its image, once that is on the disk.
    image: Option<JoinHandle<Result<Image>>>,
}

impl<'a> Ready<'a> {
    /// A layer that is files.
    pub(crate) fn files(extract: Extract<'a>) -> Self {
        Self { extract, image: None }
    }

    /// Waits until nothing is done for the layer any more, which will not be committed: what still
    /// writes holds the space that is to be given back.
    async fn end(self) {
        if let Some(image) = self.image {
            drop(image.await);
        }
    }
}

impl Session {
    /// Commits `layers`, lowest first, on top of those that are `there`.
    pub(crate) async fn settle(
        &self,
        there: &[Layer],
        layers: impl Iterator<Item = (Extract<'_>, Outcome)>,
    ) -> Result<()> {
        let mut ready = Vec::new();
        let settled = self.settle_each(there, layers, &mut ready).await;
        match settled {
            Ok(committed) => self.commit_all(&committed, ready).await,
            Err(error) => {
                for left in ready {
                    left.end().await;
                }
                Err(error)
            }
        }
    }

    /// Corrects `layers`, which are then `ready`, but for those below one that had to be committed.
    /// Returns the layer that the first of them goes on.
    async fn settle_each<'a>(
        &self,
        there: &[Layer],
        layers: impl Iterator<Item = (Extract<'a>, Outcome)>,
        ready: &mut Vec<Ready<'a>>,
    ) -> Result<String> {
        let mut parent = there.last().map(|layer| layer.chain_id.to_string()).unwrap_or_default();
        let lowers = Arc::new(Mutex::new(self.lowers(&parent).await?));
        let mut committed = parent.clone();
        for (extract, outcome) in layers {
            let next = extract.layer.chain_id.to_string();
            let done = match outcome {
                Outcome::Made(made) => correct(extract, made, lowers.clone()).await?,
                Outcome::NeedsLower(error) if parent.is_empty() => return Err(error),
                Outcome::NeedsLower(_) => {
                    self.commit_all(&committed, std::mem::take(ready)).await?;
                    committed.clone_from(&parent);
                    self.snapshots()?.remove(&extract.key).await?;
                    let extract = self.extract_onto(extract.layer, &extract.key, &parent).await?;
                    push(extract.place.clone(), lowers.clone()).await?;
                    Ready::files(extract)
                }
            };
            parent = next;
            ready.push(done);
        }
        Ok(committed)
    }

    /// Makes the snapshot `key` on `parent` of a layer whose blob is there, in the tree that its
    /// mounts show.
    pub(crate) async fn extract_onto<'a>(
        &self,
        layer: &'a Layer,
        key: &str,
        parent: &str,
    ) -> Result<Extract<'a>> {
        let snapshots = self.snapshots()?;
        let mounts = snapshots.prepare(key, parent, volatile()).await?;
        let directory = snapshots.changes(key).await?;
        let merged = blocking(move || mounted(&mounts)).await?;
        let target = Target::Directory(merged, Whiteouts::Remove);
        match self.unpack_stored(layer, target).await? {
            Outcome::Made(Made::Files(applied)) => match self.lowers(parent).await {
                Ok(lowers) => {
                    let upper = directory.clone();
                    blocking(move || correct_files(&upper, &lowers, &applied)).await?;
                }
                // Directories have the times of what was made in them then.
                Err(error) if error.kind() == Kind::Unimplemented => {}
                Err(error) => return Err(error),
            },
            Outcome::Made(Made::Image(_)) => {
                return Err(Error::internal("files became an image"));
            }
            Outcome::NeedsLower(error) => return Err(error),
        }
        Ok(Extract { layer, key: key.to_owned(), place: Place::Directory(directory) })
    }

    /// Syncs what was extracted and commits it as a chain on `parent`.
    pub(crate) async fn commit_all(&self, parent: &str, layers: Vec<Ready<'_>>) -> Result<()> {
        let files = layers.iter().find_map(|ready| match &ready.extract.place {
            Place::Directory(directory) => Some(directory.clone()),
            Place::Image(_) => None,
        });
        if let Some(directory) = files {
            sync(directory).await?;
        }
        let mut layers = layers.into_iter();
        let committed = self.commit_each(parent, &mut layers).await;
        for left in layers {
            left.end().await;
        }
        committed
    }

    async fn commit_each(
        &self,
        parent: &str,
        layers: &mut impl Iterator<Item = Ready<'_>>,
    ) -> Result<()> {
        let mut parent = parent.to_owned();
        for Ready { extract, image } in layers {
            let image = match image {
                Some(image) => Some(image.await.map_err(|error| {
                    Error::internal(format!("the thread of an image failed: {error}"))
                })??),
                None => None,
            };
            let name = extract.layer.chain_id.to_string();
            let below = Some(parent).filter(|parent| !parent.is_empty());
            // An image's directories are still to be synced, which the commit does.
            let synced = image.is_none();
            let options = CommitOptions { parent: below, synced, image, ..Default::default() };
            match self.snapshots()?.commit(&name, &extract.key, options).await {
                Ok(()) => {}
                // A client made the same snapshot meanwhile.
                Err(error) if error.kind() == Kind::AlreadyExists => {
                    self.snapshots()?.remove(&extract.key).await?;
                }
                Err(error) => return Err(error),
            }
            self.progress.tell(&extract.layer.blob, Phase::Done, extract.layer.blob.size);
            parent = name;
        }
        Ok(())
    }

    /// The layers of a committed chain.
    async fn lowers(&self, chain: &str) -> Result<Lowers> {
        if chain.is_empty() {
            return Ok(Lowers::default());
        }
        Ok(Lowers::new(self.snapshots()?.layers(chain).await?))
    }
}

/// Puts the filesystem that has `directory` on the disk: for many files that is cheaper than to
/// sync each.
pub(crate) async fn sync(directory: PathBuf) -> Result<()> {
    blocking(move || {
        let what = || format!("sync the filesystem of {}", directory.display());
        let directory = File::open(&directory).context(what)?;
        rustix::fs::syncfs(&directory).map_err(std::io::Error::from).context(what)
    })
    .await
}

/// Corrects a layer that was made alone for its place on top of `lowers`, and puts it there.
async fn correct(
    extract: Extract<'_>,
    made: Made,
    lowers: Arc<Mutex<Lowers>>,
) -> Result<Ready<'_>> {
    let place = extract.place.clone();
    let sealed = blocking(move || {
        let mut lowers = lowers.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = match (made, &place) {
            (Made::Files(applied), Place::Directory(upper)) => {
                correct_files(upper, &lowers, &applied)?;
                None
            }
            (Made::Image(draft), _) => Some(correct_image(*draft, &lowers)?),
            (Made::Files(_), Place::Image(_)) => {
                return Err(Error::internal("an image became files"));
            }
        };
        lowers.push(open(&place)?);
        Ok(sealed)
    });
    let image = sealed.await?.map(|sealed| tokio::task::spawn_blocking(move || finish(&sealed)));
    Ok(Ready { extract, image })
}

/// Puts a layer on top of `lowers`.
async fn push(place: Place, lowers: Arc<Mutex<Lowers>>) -> Result<()> {
    blocking(move || {
        let root = open(&place)?;
        lowers.lock().unwrap_or_else(PoisonError::into_inner).push(root);
        Ok(())
    })
    .await
}

fn open(place: &Place) -> Result<OwnedFd> {
    match place {
        Place::Directory(path) => open_directory(path),
        Place::Image(path) => mount_image(path),
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    File::open(path).map(OwnedFd::from).context(|| format!("open {}", path.display()))
}

fn correct_files(upper: &Path, lowers: &Lowers, applied: &Applied) -> Result<()> {
    berth_archive::settle(open_directory(upper)?.as_fd(), lowers, applied)
}

fn correct_image(mut draft: Draft, lowers: &Lowers) -> Result<berth_erofs::Image> {
    draft.settle(|path| match lowers.shown(path)? {
        Some(directory) => Below::of(directory.as_fd()).map(Some),
        None => Ok(None),
    })?;
    draft.seal()
}

/// Puts an image on the disk. This takes its time, while the next layers are settled.
fn finish(sealed: &berth_erofs::Image) -> Result<Image> {
    sealed.file.sync_all().context(|| "sync the layer's image")?;
    let checksum = berth_erofs::checksum(&sealed.file)?;
    Ok(Image { inodes: sealed.inodes, checksum })
}

/// Opens what the mounts of a snapshot show.
fn mounted(mounts: &[Mount]) -> Result<OwnedFd> {
    match mounts {
        [Mount { kind, source, .. }] if kind == "bind" => open_directory(Path::new(source)),
        _ => {
            let options = mounts.iter().flat_map(|mount| &mount.options);
            mount_overlay(&options.map(String::as_str).collect::<Vec<_>>())
        }
    }
}

/// A detached mount: it is seen nowhere and goes with its descriptor.
fn mount_overlay(options: &[&str]) -> Result<OwnedFd> {
    // A kernel may be set up to copy only metadata up, which leaves a layer that needs its lower
    // one's files in a way that no archive and no other mount knows.
    let options = [options, &["metacopy=off"]].concat();
    let mounted = mount::overlay(&options, MountAttrFlags::empty())
        .context(|| "mount the lower layers for one that links to them")?;
    mounted.ok_or_else(|| {
        Error::unimplemented(
            "a layer links to files of lower layers, which needs Linux 6.8 or shorter paths of \
             the root directory",
        )
    })
}
