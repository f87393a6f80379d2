//! The snapshots of an image: which are missing, and how they are made.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use berth_archive::{Applied, Decompress, Options, Whiteouts, apply, fix_implicit_parents};
use berth_metadata::Snapshots;
use berth_snapshotter::{CommitOptions, VOLATILE};
use berth_sys::mount;
use berth_types::labels::Labels;
use berth_types::{Error, Kind, Result, ResultExt};
use futures_util::future::{join, join_all};
use rustix::mount::MountAttrFlags;

use crate::blocking;
use crate::layer::check;
use crate::progress::Phase;
use crate::resolved::{Layer, Resolved};
use crate::session::Session;
use crate::stream::Outcome;

/// A snapshot being made of a layer.
struct Extract<'a> {
    layer: &'a Layer,
    key: String,
    directory: PathBuf,
}

impl Session {
    /// Sees to it that the blobs of all layers are in the content store and that the snapshot of
    /// all layers is there.
    pub(crate) async fn unpack(&self, image: &Resolved) -> Result<()> {
        let layers = image.layers.as_slice();
        for layer in layers {
            self.progress.tell(&layer.blob, Phase::Waiting, 0);
        }
        let mut missing = self.missing(layers).await?;
        let _alone = match missing.first() {
            Some(lowest) => {
                let chain = (
                    self.scope.namespace().to_owned(),
                    self.snapshotter.clone(),
                    lowest.chain_id.clone(),
                );
                let guard = self.puller.chains().lock(chain).await;
                missing = self.missing(layers).await?;
                Some(guard)
            }
            None => None,
        };
        let (there, missing) = layers.split_at(layers.len() - missing.len());
        let extracts: Vec<_> =
            missing.iter().map(|layer| self.new_key(layer)).collect::<Result<_>>()?;
        let result = self.build(there, missing, &extracts).await;
        if result.is_err() {
            self.remove(&extracts).await;
        }
        result
    }

    /// The layers above the uppermost one that has its snapshot, which the lease keeps from now.
    async fn missing<'a>(&self, layers: &'a [Layer]) -> Result<&'a [Layer]> {
        for (position, layer) in layers.iter().enumerate().rev() {
            match self.snapshots()?.adopt(layer.chain_id.as_str()).await {
                Ok(_) => return Ok(&layers[position + 1..]),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(layers)
    }

    async fn build(&self, there: &[Layer], missing: &[Layer], keys: &[String]) -> Result<()> {
        let fetched = join_all(there.iter().map(|layer| self.or_stop(self.fetch(layer))));
        let extracted = join_all(
            missing.iter().zip(keys).map(|(layer, key)| self.or_stop(self.extract(layer, key))),
        );
        let (fetched, extracted) = join(fetched, extracted).await;
        let extracted = all_or_cause(extracted);
        // Of several failures the first that isn't a consequence of another.
        match (all_or_cause(fetched), extracted) {
            (Ok(_), Ok(extracted)) => self.settle(there, extracted).await,
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
            (Err(one), Err(other)) => Err(if one.kind() == Kind::Cancelled { other } else { one }),
        }
    }

    /// Stops the other layers when this one fails.
    async fn or_stop<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let result = work.await;
        if result.is_err() {
            self.stop.cancel();
        }
        result
    }

    /// Makes a layer's files in a new snapshot without a parent.
    async fn extract<'a>(&self, layer: &'a Layer, key: &str) -> Result<(Extract<'a>, Outcome)> {
        let snapshots = self.snapshots()?;
        snapshots.prepare(key, "", volatile()).await?;
        let directory = snapshots.changes(key).await?;
        let outcome = self.fetch_and_apply(layer, directory.clone()).await?;
        Ok((Extract { layer, key: key.to_owned(), directory }, outcome))
    }

    /// Puts the layers on top of each other, lowest first: corrects what an archive alone doesn't
    /// tell, then syncs once and commits.
    async fn settle(&self, there: &[Layer], layers: Vec<(Extract<'_>, Outcome)>) -> Result<()> {
        let mut parent = there.last().map(|layer| layer.chain_id.to_string()).unwrap_or_default();
        let mut lowers = self.directories(&parent).await?;
        let mut ready = Vec::new();
        let mut committed = parent.clone();
        for (mut extract, outcome) in layers {
            match outcome {
                Outcome::Applied(applied) => {
                    fix(extract.directory.clone(), lowers.clone(), applied).await?;
                }
                Outcome::NeedsLower => {
                    self.commit_all(&committed, std::mem::take(&mut ready)).await?;
                    committed = parent.clone();
                    lowers = self.directories(&parent).await?;
                    self.extract_onto(&mut extract, &parent).await?;
                }
            }
            parent = extract.layer.chain_id.to_string();
            lowers.insert(0, extract.directory.clone());
            ready.push(extract);
        }
        self.commit_all(&committed, ready).await
    }

    /// Makes a layer's files again, in an overlay over its parents.
    async fn extract_onto(&self, extract: &mut Extract<'_>, parent: &str) -> Result<()> {
        let snapshots = self.snapshots()?;
        snapshots.remove(&extract.key).await?;
        let mounts = snapshots.prepare(&extract.key, parent, volatile()).await?;
        extract.directory = snapshots.changes(&extract.key).await?;
        let [overlay] = mounts.as_slice() else {
            return Err(Error::failed_precondition(format!(
                "layer {} links to lower layers, but has none",
                extract.layer.blob.digest
            )));
        };
        let (scope, layer) = (self.scope.clone(), extract.layer.clone());
        let options = overlay.options.clone();
        blocking(move || {
            let archive = scope.content().reader(&layer.blob.digest)?.file;
            let merged = mount_overlay(&options)?;
            let whiteouts = Whiteouts::Remove;
            let how = Options { whiteouts, ..Options::default() };
            let applied = Decompress::new(archive)
                .and_then(|tar| apply(tar, merged.as_fd(), &how))
                .context(|| format!("unpack layer {}", layer.blob.digest))?;
            check(&layer, &Outcome::Applied(applied))
        })
        .await
    }

    /// Syncs what was extracted and commits it as a chain on `parent`.
    async fn commit_all(&self, parent: &str, extracts: Vec<Extract<'_>>) -> Result<()> {
        let Some(first) = extracts.first() else { return Ok(()) };
        let directory = first.directory.clone();
        blocking(move || {
            let what = || format!("sync the filesystem of {}", directory.display());
            let directory = File::open(&directory).context(what)?;
            rustix::fs::syncfs(&directory).map_err(std::io::Error::from).context(what)
        })
        .await?;
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

    /// Removes the snapshots of a failed attempt. Those that stay in spite of it are garbage.
    async fn remove(&self, keys: &[String]) {
        let Ok(snapshots) = self.snapshots() else { return };
        for key in keys {
            match snapshots.remove(key).await {
                Err(error) if error.kind() != Kind::NotFound => {
                    tracing::warn!(%error, key, "an unfinished snapshot is left behind");
                }
                _ => {}
            }
        }
    }

    fn snapshots(&self) -> Result<Snapshots<'_>> {
        self.scope.snapshots(&self.snapshotter)
    }

    fn new_key(&self, layer: &Layer) -> Result<String> {
        let random = getrandom::u64()
            .map_err(|e| Error::internal(format!("no random numbers for a snapshot: {e}")))?;
        Ok(format!("extract-{random:016x} {}", layer.chain_id))
    }
}

/// An unfinished snapshot is of no use after a crash.
fn volatile() -> Labels {
    [(VOLATILE.to_owned(), String::new())].into()
}

/// All results, or the failure that caused the others.
fn all_or_cause<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let mut done = Vec::with_capacity(results.len());
    let mut failure: Option<Error> = None;
    for result in results {
        match (result, &failure) {
            (Ok(value), _) => done.push(value),
            (Err(error), Some(known)) if known.kind() != Kind::Cancelled => drop(error),
            (Err(error), _) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(done),
    }
}

async fn fix(upper: PathBuf, lowers: Vec<PathBuf>, applied: Applied) -> Result<()> {
    if applied.implicit.is_empty() || lowers.is_empty() {
        return Ok(());
    }
    blocking(move || {
        let open = |path: &PathBuf| File::open(path).context(|| format!("open {}", path.display()));
        let upper = open(&upper)?;
        let lowers = lowers.iter().map(open).collect::<Result<Vec<_>>>()?;
        let lowers: Vec<_> = lowers.iter().map(AsFd::as_fd).collect();
        fix_implicit_parents(upper.as_fd(), &lowers, &applied.implicit)
    })
    .await
}

/// A detached mount: it is seen nowhere and goes with its descriptor.
fn mount_overlay(options: &[String]) -> Result<OwnedFd> {
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let mounted = mount::overlay(&options, MountAttrFlags::empty())
        .context(|| "mount the lower layers for one that links to them")?;
    mounted.ok_or_else(|| {
        Error::unimplemented(
            "a layer links to files of lower layers, which needs Linux 6.8 or shorter paths of \
             the root directory",
        )
    })
}
