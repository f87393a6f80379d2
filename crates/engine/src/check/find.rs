//! What is damaged.

use std::collections::BTreeMap;

use berth_metadata::Scope;
use berth_proto::berth::v1::check_response::Message;
use berth_snapshotter::Kind as SnapshotKind;
use berth_types::{Digest, Error, Fault, Kind, Result};

use super::uses::Lack;
use super::{Check, Found, SnapshotName, What};

impl Check {
    /// Looks at everything. Without `repair` it ends when the client is gone.
    pub(super) async fn find(&mut self, repair: bool) -> Result<Vec<Found>> {
        self.read_uses()?;
        self.summary.images = self.uses.names.len() as u64;
        let scopes = self.scopes()?;
        let blobs = recorded(&scopes)?;
        let snapshots = self.snapshots(&scopes).await?;
        self.progress.total =
            blobs.values().sum::<u64>() + snapshots.iter().map(|(_, _, size)| size).sum::<u64>();
        let mut found = Vec::new();
        self.find_unrecorded(&mut found).await?;
        for (digest, size) in blobs {
            self.go_on(repair)?;
            self.find_blob(digest, size, &mut found).await?;
        }
        for lack in std::mem::take(&mut self.uses.lacks) {
            self.find_lack(lack, &mut found).await;
        }
        for (name, committed, size) in snapshots {
            self.go_on(repair)?;
            self.find_snapshot(&scopes, name, committed, size, &mut found).await?;
        }
        Ok(found)
    }

    async fn find_blob(&mut self, digest: Digest, size: u64, found: &mut Vec<Found>) -> Result<()> {
        let metadata = self.engine.parts().metadata.clone();
        let fault = metadata.check_blob(&digest, size).await?;
        self.summary.blobs += 1;
        self.advance(size).await;
        let Some(fault) = fault else { return Ok(()) };
        let images = self.uses.blob(&digest).map(|used| used.images.clone()).unwrap_or_default();
        let what = What::Blob(digest);
        self.report(Found { what, fault, images }, found).await;
        Ok(())
    }

    /// What an image lacks is told once, with all images that lack it.
    pub(super) async fn find_lack(&mut self, lack: Lack, found: &mut Vec<Found>) {
        let is_known = |other: &Found| match &other.what {
            What::Lack(known) => known.digest == lack.digest && known.image.0 == lack.image.0,
            _ => false,
        };
        if found.iter().any(is_known) {
            return;
        }
        let used = self.uses.blob(&lack.digest);
        let images = used.map(|used| used.images.clone()).unwrap_or_default();
        let images = images.into_iter().filter(|image| image.0 == lack.image.0).collect();
        let what = What::Lack(Box::new(lack));
        self.report(Found { what, fault: Fault::Missing, images }, found).await;
    }

    async fn find_snapshot(
        &mut self,
        scopes: &BTreeMap<String, Scope>,
        name: SnapshotName,
        committed: bool,
        size: u64,
        found: &mut Vec<Found>,
    ) -> Result<()> {
        let Some(scope) = scopes.get(&name.namespace) else { return Ok(()) };
        let fault = scope.snapshots(&name.snapshotter)?.check(&name.key).await?;
        self.summary.snapshots += 1;
        self.advance(size).await;
        let Some(fault) = fault else { return Ok(()) };
        let used = self.uses.layer(&name.namespace, &name.key);
        let images = used.map(|used| used.images.clone()).unwrap_or_default();
        self.report(Found { what: What::Snapshot(name, committed), fault, images }, found).await;
        Ok(())
    }

    /// What no record names. Whole blobs among that are no damage.
    async fn find_unrecorded(&mut self, found: &mut Vec<Found>) -> Result<()> {
        let metadata = self.engine.parts().metadata.clone();
        for path in metadata.strays().await? {
            let stray = What::Stray(path);
            let known = Found { what: stray, fault: Fault::Differs, images: Default::default() };
            self.report(known, found).await;
        }
        for (digest, size) in metadata.unrecorded_blobs().await? {
            // An empty blob is a blob too.
            match metadata.check_blob(&digest, size).await? {
                None => {
                    self.summary.unused += 1;
                    self.summary.unused_bytes += size;
                }
                Some(fault) => {
                    let what = What::Unrecorded(digest);
                    self.report(Found { what, fault, images: Default::default() }, found).await;
                }
            }
        }
        Ok(())
    }

    /// All snapshots, in the order in which they are built on each other; whether each is committed
    /// and how large it is.
    async fn snapshots(
        &self,
        scopes: &BTreeMap<String, Scope>,
    ) -> Result<Vec<(SnapshotName, bool, u64)>> {
        let mut all = Vec::new();
        for (namespace, scope) in scopes {
            for snapshotter in scope.metadata().snapshotters() {
                let snapshots = scope.snapshots(snapshotter)?;
                let listed = match snapshots.list(&[]).await {
                    // One that another process serves, which alone can look at them.
                    Err(error) if error.kind() == Kind::Unavailable => {
                        tracing::warn!(%error, snapshotter, "snapshots are not looked at");
                        continue;
                    }
                    listed => listed?,
                };
                let parents: BTreeMap<_, _> =
                    listed.iter().map(|info| (info.key.as_str(), info.parent.as_str())).collect();
                let mut by_depth: Vec<_> =
                    listed.iter().map(|info| (depth(&parents, &info.key), info)).collect();
                by_depth.sort_by_key(|(depth, _)| *depth);
                for (_, info) in by_depth {
                    let committed = info.kind == SnapshotKind::Committed;
                    let size = match committed {
                        true => snapshots.usage(&info.key).await.map_or(0, |usage| usage.size),
                        false => 0,
                    };
                    let name = SnapshotName {
                        namespace: namespace.clone(),
                        snapshotter: snapshotter.to_owned(),
                        key: info.key.clone(),
                    };
                    all.push((name, committed, size));
                }
            }
        }
        Ok(all)
    }

    pub(super) async fn report(&mut self, one: Found, found: &mut Vec<Found>) {
        self.summary.damaged += 1;
        self.tell(Message::Damage(self.wire(&one))).await;
        found.push(one);
    }

    async fn advance(&mut self, bytes: u64) {
        self.progress.current += bytes;
        self.tell(Message::Progress(self.progress)).await;
    }

    /// # Errors
    /// `Cancelled` when nobody listens to what is only looked at.
    fn go_on(&self, repair: bool) -> Result<()> {
        match !repair && self.client.is_closed() {
            true => Err(Error::cancelled("the client is gone")),
            false => Ok(()),
        }
    }
}

/// The blobs that records name, with their sizes.
fn recorded(scopes: &BTreeMap<String, Scope>) -> Result<BTreeMap<Digest, u64>> {
    let mut all = BTreeMap::new();
    for scope in scopes.values() {
        for info in scope.content().list(&[])? {
            let Ok(digest) = info.digest.parse::<Digest>() else { continue };
            let size = u64::try_from(info.size).unwrap_or_default();
            all.insert(digest, size);
        }
    }
    Ok(all)
}

/// How many snapshots one is built on.
fn depth(parents: &BTreeMap<&str, &str>, key: &str) -> usize {
    let above = |key: &&str| parents.get(key).copied().filter(|parent| !parent.is_empty());
    std::iter::successors(Some(key), above).take(parents.len() + 1).count()
}
