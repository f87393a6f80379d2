//! What is damaged, made whole: fetched or made again, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use berth_proto::berth::v1::Repair;
use berth_proto::berth::v1::check_response::Message;
use berth_proto::containerd::v1::types::Status;
use berth_pull::{LayerRepair, sources};
use berth_types::image::Descriptor;
use berth_types::{Digest, Kind, Reference, Result};

use super::uses::{Image, Lack};
use super::{Check, Found, SnapshotName, What};

/// A document that was mended may tell of more that is missing: index, manifest, config, layers.
const ROUNDS: usize = 4;

/// What became of a damaged thing: what was done, or what is to be done.
struct Outcome {
    done: bool,
    text: String,
    containers: Vec<String>,
}

impl Outcome {
    fn done(text: impl Into<String>) -> Self {
        Self { done: true, text: text.into(), containers: Vec::new() }
    }

    fn failed(text: impl Into<String>) -> Self {
        Self { done: false, text: text.into(), containers: Vec::new() }
    }
}

impl Check {
    /// Mends what was found, as far as that goes.
    ///
    /// # Errors
    /// Those of the database. A thing that can't be mended is told of.
    pub(super) async fn mend(&mut self, found: Vec<Found>) -> Result<()> {
        self.engine.parts().metadata.remove_strays().await?;
        let (mut blobs, mut lacks, mut snapshots) = (Vec::new(), Vec::new(), Vec::new());
        for one in found {
            match one.what {
                What::Blob(..) => blobs.push(one),
                What::Lack(_) => lacks.push(one),
                What::Snapshot(..) => snapshots.push(one),
                What::Unrecorded(_) | What::Stray(_) => self.mend_one(&one).await?,
            }
        }
        self.mend_blobs(blobs).await?;
        self.mend_lacks(lacks).await?;
        self.read_uses()?;
        for one in &snapshots {
            self.mend_one(one).await?;
        }
        self.summary.unused = 0;
        self.summary.unused_bytes = 0;
        for (digest, _) in self.engine.parts().metadata.unrecorded_blobs().await? {
            self.engine.parts().metadata.remove_unrecorded_blob(&digest).await?;
        }
        Ok(())
    }

    /// Mends blobs from the top: a document that is whole again tells what others are.
    async fn mend_blobs(&mut self, mut blobs: Vec<Found>) -> Result<()> {
        while !blobs.is_empty() {
            self.read_uses()?;
            let is_known = |one: &Found| match &one.what {
                What::Blob(digest) => self.uses.blob(digest).is_some(),
                _ => false,
            };
            let (known, unknown): (Vec<_>, Vec<_>) = blobs.into_iter().partition(is_known);
            let (now, later) =
                if known.is_empty() { (unknown, Vec::new()) } else { (known, unknown) };
            for one in &now {
                self.mend_one(one).await?;
            }
            blobs = later;
        }
        Ok(())
    }

    /// Completes images, and those that turn out to lack something once their documents are whole.
    async fn mend_lacks(&mut self, mut known: Vec<Found>) -> Result<()> {
        for one in &known {
            self.mend_one(one).await?;
        }
        for _ in 0..ROUNDS {
            self.read_uses()?;
            let before = known.len();
            for lack in std::mem::take(&mut self.uses.lacks) {
                self.find_lack(lack, &mut known).await;
            }
            if known.len() == before {
                break;
            }
            for one in known.split_off(before) {
                self.mend_one(&one).await?;
                known.push(one);
            }
        }
        Ok(())
    }

    async fn mend_one(&mut self, one: &Found) -> Result<()> {
        let outcome = match &one.what {
            What::Blob(digest) => self.mend_blob(digest).await?,
            What::Unrecorded(digest) => {
                self.engine.parts().metadata.remove_unrecorded_blob(digest).await?;
                Outcome::done("removed")
            }
            // They went together, before all else.
            What::Stray(_) => Outcome::done("removed"),
            What::Lack(lack) => self.mend_lack(lack).await?,
            What::Snapshot(name, true) => self.mend_layer(name).await?,
            What::Snapshot(name, false) => Outcome::failed(format!(
                "what was written to it is lost: remove the container or snapshot (berth rm, or \
                 ctr -n {} snapshots --snapshotter {} rm {})",
                name.namespace, name.snapshotter, name.key
            )),
        };
        self.summary.repaired += u64::from(outcome.done);
        let Outcome { done, text: outcome, containers } = outcome;
        let damage = Some(self.wire(one));
        self.tell(Message::Repair(Repair { damage, done, outcome, containers })).await;
        Ok(())
    }

    /// Fetches a blob from wherever one of the namespaces that have it got it.
    async fn mend_blob(&self, digest: &Digest) -> Result<Outcome> {
        let (mut records, mut from) = (Vec::new(), Vec::new());
        for (namespace, scope) in self.scopes()? {
            match scope.content().info(digest) {
                Err(error) if error.kind() == Kind::NotFound => {}
                info => {
                    let info = info?;
                    from.extend(sources(&info, &self.uses.names));
                    records.push((namespace, info));
                }
            }
        }
        let Some((namespace, info)) = records.first() else {
            return Ok(Outcome::done("it is no longer needed"));
        };
        let used = self.uses.blob(digest);
        if from.is_empty() {
            let images = used.map(|used| used.images.clone()).unwrap_or_default();
            return Ok(Outcome::failed(came_from_nowhere(&images)));
        }
        let described = used.map(|used| used.described.clone()).unwrap_or_else(|| {
            let size = u64::try_from(info.size).unwrap_or_default();
            Descriptor::new(String::new(), digest.clone(), size)
        });
        let puller = &self.engine.parts().puller;
        Ok(told(puller.refetch(namespace, &described, from).await))
    }

    async fn mend_lack(&self, lack: &Lack) -> Result<Outcome> {
        let Lack { image, target, platform, .. } = lack;
        let scope = self.engine.scope(&image.0)?;
        let images = BTreeSet::from([image.clone()]);
        let from = match scope.content().info(&target.digest) {
            Ok(info) => sources(&info, &self.uses.names),
            // Nothing is left but the name.
            Err(_) => image.1.parse().into_iter().collect(),
        };
        if from.is_empty() {
            return Ok(Outcome::failed(came_from_nowhere(&images)));
        }
        let snapshotter = scope.snapshotter()?;
        let puller = &self.engine.parts().puller;
        Ok(told(puller.complete(&image.0, target, platform, &snapshotter, from).await))
    }

    async fn mend_layer(&self, name: &SnapshotName) -> Result<Outcome> {
        let SnapshotName { namespace, snapshotter, key } = name;
        let Some(used) = self.uses.layer(namespace, key) else {
            return Ok(Outcome::failed(format!(
                "no image tells what it was made of: remove what is built on it, and then it (ctr \
                 -n {namespace} snapshots --snapshotter {snapshotter} rm {key})"
            )));
        };
        // Before: whoever starts later uses the new one.
        let containers = self.running_on(name).await?;
        let scope = self.engine.scope(namespace)?;
        let blob = used.chain.last().map(|layer| layer.blob.digest.clone());
        let info = blob.and_then(|blob| scope.content().info(&blob).ok()).unwrap_or_default();
        let repair = LayerRepair {
            namespace: namespace.clone(),
            snapshotter: snapshotter.clone(),
            chain: used.chain.clone(),
            sources: match info.digest.is_empty() {
                true => used.images.iter().filter_map(|(_, name)| name.parse().ok()).collect(),
                false => sources(&info, &self.uses.names),
            },
        };
        Ok(match self.engine.parts().puller.rebuild(repair).await {
            Ok(()) => Outcome { containers, ..Outcome::done("made again from its blob") },
            Err(error) => Outcome::failed(format!(
                "{error}; if this stays so, remove the image and pull it again"
            )),
        })
    }

    /// The running containers whose root has the layer in it.
    async fn running_on(&self, layer: &SnapshotName) -> Result<Vec<String>> {
        let parts = self.engine.parts();
        let scope = self.engine.scope(&layer.namespace)?;
        let listed = scope.snapshots(&layer.snapshotter)?.list(&[]).await?;
        let parents: BTreeMap<_, _> =
            listed.iter().map(|info| (info.key.as_str(), info.parent.as_str())).collect();
        let mut running = Vec::new();
        for container in scope.containers().list(&[])? {
            let is_running = parts
                .tasks
                .get(&layer.namespace, &container.id)
                .is_ok_and(|task| task.known().0 != Status::Stopped);
            let above = |key: &&str| parents.get(key).copied().filter(|key| !key.is_empty());
            let mut chain = std::iter::successors(Some(container.snapshot_key.as_str()), above)
                .take(parents.len() + 1);
            if is_running
                && container.snapshotter == layer.snapshotter
                && chain.any(|key| key == layer.key)
            {
                running.push(container.id);
            }
        }
        Ok(running)
    }
}

fn told(fetched: Result<Reference>) -> Outcome {
    match fetched {
        Ok(from) => Outcome::done(format!("fetched again from {}", from.name())),
        Err(error) => {
            Outcome::failed(format!("{error}; try again when the registry can be reached"))
        }
    }
}

fn came_from_nowhere(images: &BTreeSet<Image>) -> String {
    match images.first() {
        Some((namespace, name)) => format!(
            "it came from no registry: remove the image and import it again (berth -n {namespace} \
             rmi {name})"
        ),
        None => "no image uses it and nothing says where it came from: remove it (ctr content rm)"
            .to_owned(),
    }
}
