//! The snapshots of an image: which are missing, and who makes them.

use std::path::PathBuf;

use berth_metadata::Snapshots;
use berth_snapshotter::VOLATILE;
use berth_types::labels::Labels;
use berth_types::{Digest, Error, Kind, Result};
use futures_util::future::{join, join_all};

use crate::blocking;
use crate::progress::Phase;
use crate::resolved::{Layer, Resolved};
use crate::session::{Policy, Session};
use crate::settle::{Ready, sync};
use crate::stream::{Outcome, Target};

/// What the keys of unfinished snapshots begin with.
pub(crate) const UNFINISHED: &str = "extract-";

/// A snapshot being made of a layer.
pub(crate) struct Extract<'a> {
    pub(crate) layer: &'a Layer,
    pub(crate) key: String,
    pub(crate) place: Place,
}

/// Where the snapshotter wants a layer.
#[derive(Clone)]
pub(crate) enum Place {
    /// Its files in this directory.
    Directory(PathBuf),
    /// All of it in this file.
    Image(PathBuf),
}

impl Place {
    async fn open(&self) -> Result<Target> {
        let place = self.clone();
        blocking(move || match place {
            Place::Directory(path) => Target::directory(&path),
            Place::Image(path) => Target::image(&path),
        })
        .await
    }
}

impl Session {
    /// Sees to it that the snapshot of all layers is there, and the blobs that the policy wants in
    /// the content store.
    pub(crate) async fn unpack(&self, image: &Resolved) -> Result<()> {
        let layers = image.layers.as_slice();
        for layer in layers {
            self.progress.tell(&layer.blob, Phase::Waiting, 0);
        }
        let mut alone = Vec::new();
        for layer in self.missing(layers).await? {
            alone.push(self.puller.chains().lock(self.chain_key(&layer.chain_id)).await);
        }
        // Whoever had the locks before may have made what was missing.
        let missing = self.missing(layers).await?;
        let there = &layers[..layers.len() - missing.len()];
        let keys: Vec<_> = missing.iter().map(new_key).collect::<Result<_>>()?;
        let result = self.build(there, missing, &keys).await;
        if result.is_err() {
            self.remove(&keys).await;
        }
        result
    }

    /// The layers above the uppermost one that has its snapshot, which the lease keeps from now.
    pub(crate) async fn missing<'a>(&self, layers: &'a [Layer]) -> Result<&'a [Layer]> {
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
        if !self.snapshots()?.rebases() {
            return self.build_in_order(there, missing, keys).await;
        }
        let fetched = join_all(there.iter().map(|layer| self.or_stop(self.fetch_unpacked(layer))));
        let extracted = join_all(
            missing.iter().zip(keys).map(|(layer, key)| self.or_stop(self.extract(layer, key))),
        );
        let (fetched, extracted) = join(fetched, extracted).await;
        let failures = fetched.into_iter().filter_map(Result::err);
        let (extracted, failed): (Vec<_>, Vec<_>) = extracted.into_iter().partition(Result::is_ok);
        match cause(failures.chain(failed.into_iter().filter_map(Result::err))) {
            Some(error) => Err(error),
            None => self.settle(there, extracted.into_iter().flatten()).await,
        }
    }

    /// Brings the blob of a layer that is unpacked, if it is to be here.
    async fn fetch_unpacked(&self, layer: &Layer) -> Result<()> {
        if self.policy == Policy::Keep {
            return self.fetch(layer).await;
        }
        self.progress.tell(&layer.blob, Phase::Exists, layer.blob.size);
        Ok(())
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
    pub(crate) async fn extract<'a>(
        &self,
        layer: &'a Layer,
        key: &str,
    ) -> Result<(Extract<'a>, Outcome)> {
        let snapshots = self.snapshots()?;
        snapshots.prepare(key, "", volatile()).await?;
        let place = match snapshots.image(key).await? {
            Some(path) => Place::Image(path),
            None => Place::Directory(snapshots.changes(key).await?),
        };
        let outcome = self.fetch_and_unpack(layer, place.open().await?).await?;
        if let Place::Directory(directory) = &place {
            // As for an image, whose file was synced as soon as it was written.
            sync(directory.clone()).await?;
        }
        Ok((Extract { layer, key: key.to_owned(), place }, outcome))
    }

    /// The same where a snapshot can't be made without its parent.
    async fn build_in_order(
        &self,
        there: &[Layer],
        missing: &[Layer],
        keys: &[String],
    ) -> Result<()> {
        let unpacked = join_all(there.iter().map(|layer| self.or_stop(self.fetch_unpacked(layer))));
        let wanted = missing.iter().filter(|_| self.repository.is_some());
        let fetched = join_all(wanted.map(|layer| self.or_stop(self.fetch(layer))));
        let (unpacked, fetched) = join(unpacked, fetched).await;
        let fetched = unpacked.into_iter().chain(fetched);
        if let Some(error) = cause(fetched.filter_map(Result::err)) {
            return Err(error);
        }
        let mut parent = there.last().map(|layer| layer.chain_id.to_string()).unwrap_or_default();
        for (layer, key) in missing.iter().zip(keys) {
            let extract = self.extract_onto(layer, key, &parent).await?;
            self.commit_all(&parent, vec![Ready::files(extract)]).await?;
            parent = layer.chain_id.to_string();
        }
        Ok(())
    }

    /// Removes the snapshots of a failed attempt.
    pub(crate) async fn remove(&self, keys: &[String]) {
        let Ok(snapshots) = self.snapshots() else { return };
        for key in keys {
            match snapshots.remove(key).await {
                Err(error) if error.kind() != Kind::NotFound => {
                    tracing::warn!(%error, key, "an unfinished snapshot is left to the next start");
                }
                _ => {}
            }
        }
    }

    pub(crate) fn snapshots(&self) -> Result<Snapshots<'_>> {
        self.scope.snapshots(&self.snapshotter)
    }

    pub(crate) fn chain_key(&self, chain_id: &Digest) -> (String, String, Digest) {
        (self.scope.namespace().to_owned(), self.snapshotter.clone(), chain_id.clone())
    }
}

fn new_key(layer: &Layer) -> Result<String> {
    let random = getrandom::u64()
        .map_err(|e| Error::internal(format!("no random numbers for a snapshot: {e}")))?;
    Ok(format!("{UNFINISHED}{random:016x} {}", layer.chain_id))
}

/// An unfinished snapshot is of no use after a crash.
pub(crate) fn volatile() -> Labels {
    [(VOLATILE.to_owned(), String::new())].into()
}

/// The failure that caused the others: not that of a layer that was stopped, and rather a lasting
/// one (a full disk) than one that may pass (a database that closed because of it).
fn cause(failures: impl Iterator<Item = Error>) -> Option<Error> {
    failures.min_by_key(|error| match error.kind() {
        Kind::Cancelled => 2,
        Kind::Unavailable => 1,
        _ => 0,
    })
}
