//! Layers made side by side, put on top of each other: what an archive alone doesn't tell is
//! corrected, then all of it is synced once and committed.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_archive::{Applied, Whiteouts};
use berth_snapshotter::CommitOptions;
use berth_sys::mount;
use berth_types::{Error, Kind, Result, ResultExt};
use rustix::mount::MountAttrFlags;

use crate::blocking;
use crate::chain::{Extract, volatile};
use crate::progress::Phase;
use crate::resolved::Layer;
use crate::session::Session;
use crate::stream::Outcome;

impl Session {
    /// Commits `layers`, lowest first, on top of those that are `there`.
    pub(crate) async fn settle(
        &self,
        there: &[Layer],
        layers: impl Iterator<Item = (Extract<'_>, Outcome)>,
    ) -> Result<()> {
        let mut parent = there.last().map(|layer| layer.chain_id.to_string()).unwrap_or_default();
        let mut lowers = self.directories(&parent).await?;
        let mut committed = parent.clone();
        let mut ready = Vec::new();
        for (mut extract, outcome) in layers {
            let applied = match outcome {
                Outcome::Applied(applied) => applied,
                Outcome::NeedsLower(error) if parent.is_empty() => return Err(error),
                Outcome::NeedsLower(_) => {
                    self.commit_all(&committed, std::mem::take(&mut ready)).await?;
                    committed.clone_from(&parent);
                    self.extract_onto(&mut extract, &parent).await?
                }
            };
            correct(extract.directory.clone(), lowers.clone(), applied).await?;
            parent = extract.layer.chain_id.to_string();
            lowers.insert(0, extract.directory.clone());
            ready.push(extract);
        }
        self.commit_all(&committed, ready).await
    }

    /// Makes a layer's files again, in an overlay over its parents, which copies up what it links
    /// to.
    async fn extract_onto(&self, extract: &mut Extract<'_>, parent: &str) -> Result<Applied> {
        let snapshots = self.snapshots()?;
        snapshots.remove(&extract.key).await?;
        let mounts = snapshots.prepare(&extract.key, parent, volatile()).await?;
        extract.directory = snapshots.changes(&extract.key).await?;
        let merged = blocking(move || {
            let options = mounts.iter().flat_map(|mount| &mount.options);
            mount_overlay(&options.map(String::as_str).collect::<Vec<_>>())
        });
        let merged = merged.await?;
        match self.unpack_stored(extract.layer, merged, Whiteouts::Remove).await? {
            Outcome::Applied(applied) => Ok(applied),
            Outcome::NeedsLower(error) => Err(error),
        }
    }

    /// Syncs what was extracted and commits it as a chain on `parent`.
    async fn commit_all(&self, parent: &str, extracts: Vec<Extract<'_>>) -> Result<()> {
        let Some(first) = extracts.first() else { return Ok(()) };
        sync(first.directory.clone()).await?;
        let mut parent = parent.to_owned();
        for extract in extracts {
            let name = extract.layer.chain_id.to_string();
            let below = Some(parent).filter(|parent| !parent.is_empty());
            let options = CommitOptions { parent: below, synced: true, ..Default::default() };
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

    /// The directories of a committed chain, uppermost first.
    async fn directories(&self, chain: &str) -> Result<Vec<PathBuf>> {
        if chain.is_empty() { Ok(Vec::new()) } else { self.snapshots()?.layers(chain).await }
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

/// Corrects a layer that was applied alone for its place on top of `lowers`.
async fn correct(upper: PathBuf, lowers: Vec<PathBuf>, applied: Applied) -> Result<()> {
    blocking(move || {
        let open = |path: &Path| File::open(path).context(|| format!("open {}", path.display()));
        let upper = open(&upper)?;
        let lowers = lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
        let lowers: Vec<_> = lowers.iter().map(AsFd::as_fd).collect();
        berth_archive::settle(upper.as_fd(), &lowers, &applied)
    })
    .await
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
