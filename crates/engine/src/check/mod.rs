//! Compares what the stores have with what it should be, and mends it where asked.
//!
//! Everything goes on meanwhile: what is found missing or different is looked at once more in one
//! state of the database, because records go before files do and come after them.
//!
//! ```text
//! images ─► documents ─► who uses what, and what an image lacks
//! blobs  ─► size and digest          snapshots ─► checksum of the image, or the directory
//! files  ─► of no record
//! ```
//! Mended is in the order in which one thing is made of another: files of no record go, blobs are
//! fetched, images completed, layers made again, lowest first.

mod find;
mod mend;
mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use berth_metadata::Scope;
use berth_proto::berth::v1::check_response::Message;
use berth_proto::berth::v1::damage::Kind as WireKind;
use berth_proto::berth::v1::{CheckProgress, CheckResponse, CheckSummary, Damage};
use berth_types::{Digest, Fault, Result};
use tokio::sync::mpsc;

use crate::Engine;
use uses::{Image, Lack, Uses};

/// A check going on.
struct Check {
    engine: Engine,
    /// Whose images are named without their namespace.
    namespace: String,
    client: mpsc::Sender<CheckResponse>,
    uses: Uses,
    progress: CheckProgress,
    summary: CheckSummary,
}

/// Something damaged.
#[derive(Clone)]
struct Found {
    what: What,
    fault: Fault,
    images: BTreeSet<Image>,
}

#[derive(Clone)]
enum What {
    /// A blob that records name.
    Blob(Digest),
    /// A blob that no record names.
    Unrecorded(Digest),
    /// What an image lacks.
    Lack(Box<Lack>),
    /// A snapshot, committed or not.
    Snapshot(SnapshotName, bool),
    /// A file or directory that no record names.
    Stray(PathBuf),
}

/// Where a snapshot is to be found.
#[derive(Clone)]
struct SnapshotName {
    namespace: String,
    snapshotter: String,
    key: String,
}

impl Engine {
    /// Looks at all that the stores of all namespaces have, and tells `client` of what is damaged;
    /// with `repair` it is mended as far as that goes, even if the client leaves meanwhile. One
    /// check at a time.
    ///
    /// # Errors
    /// Those of database and disk that keep the rest from being looked at.
    pub async fn check(
        &self,
        scope: Scope,
        repair: bool,
        client: mpsc::Sender<CheckResponse>,
    ) -> Result<()> {
        let _alone = self.0.checking.lock().await;
        let mut check = Check {
            engine: self.clone(),
            namespace: scope.namespace().to_owned(),
            client,
            uses: Uses::default(),
            progress: CheckProgress::default(),
            summary: CheckSummary::default(),
        };
        let found = check.find(repair).await?;
        if repair {
            check.mend(found).await?;
        }
        let summary = std::mem::take(&mut check.summary);
        check.tell(Message::Summary(summary)).await;
        Ok(())
    }
}

impl Check {
    /// The scopes of all namespaces.
    fn scopes(&self) -> Result<BTreeMap<String, Scope>> {
        let metadata = &self.engine.parts().metadata;
        let names = metadata.namespaces().list()?.into_iter().map(|namespace| namespace.name);
        names.map(|name| Ok((name.clone(), metadata.scope(&name, None)?))).collect()
    }

    /// Reads anew who uses what.
    fn read_uses(&mut self) -> Result<()> {
        let mut uses = Uses::default();
        self.scopes()?.values().try_for_each(|scope| uses.read(scope))?;
        self.uses = uses;
        Ok(())
    }

    /// Tells the client, who may be gone.
    async fn tell(&self, message: Message) {
        drop(self.client.send(CheckResponse { message: Some(message) }).await);
    }

    /// A damaged thing as clients see it.
    fn wire(&self, found: &Found) -> Damage {
        let images =
            found.images.iter().map(|(namespace, name)| match *namespace == self.namespace {
                true => name.clone(),
                false => format!("{namespace}/{name}"),
            });
        let damage = Damage {
            fault: found.fault.to_string(),
            images: images.collect(),
            ..Damage::default()
        };
        let (kind, id) = match &found.what {
            What::Blob(digest) | What::Unrecorded(digest) => (WireKind::Blob, digest.to_string()),
            What::Lack(lack) => {
                let namespace = lack.image.0.clone();
                let id = lack.digest.to_string();
                return Damage { kind: WireKind::Blob.into(), id, namespace, ..damage };
            }
            What::Snapshot(name, committed) => {
                let kind = if *committed { WireKind::Layer } else { WireKind::Snapshot };
                return Damage {
                    kind: kind.into(),
                    id: name.key.clone(),
                    namespace: name.namespace.clone(),
                    snapshotter: name.snapshotter.clone(),
                    ..damage
                };
            }
            What::Stray(path) => (WireKind::Stray, path.display().to_string()),
        };
        let fault = match found.what {
            What::Stray(_) => "no record names it".to_owned(),
            _ => damage.fault.clone(),
        };
        Damage { kind: kind.into(), id, fault, ..damage }
    }
}
