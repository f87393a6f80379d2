//! When garbage is collected, and who is told.

use std::time::Duration;

use berth_events::Exchange;
use berth_metadata::{Collected, Metadata};
use berth_proto::containerd::events::{ContentDelete, SnapshotRemove};
use berth_proto::containerd::services::images::v1::ImageDelete;
use berth_types::Result;

/// How long deletions add up before a collection. It is also the time that clients who make
/// something without a lease have to refer to it, which containerd's own collector leaves them too
/// by waiting for more changes. Deletions that ask for it are not kept waiting.
const GATHER: Duration = Duration::from_secs(60);

/// At most this long without a collection, because leases and images expire unasked.
const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// Collects garbage and publishes what is gone.
#[derive(Clone)]
pub(crate) struct Collector {
    metadata: Metadata,
    events: Exchange,
}

impl Collector {
    /// A collector of `metadata`'s garbage.
    pub(crate) fn new(metadata: Metadata, events: Exchange) -> Self {
        Self { metadata, events }
    }

    /// Collects for ever, whenever there may be garbage.
    pub(crate) async fn run(self) {
        loop {
            if tokio::time::timeout(INTERVAL, self.metadata.garbage()).await.is_ok() {
                tokio::time::sleep(GATHER).await;
            }
            if let Err(error) = self.collect().await {
                tracing::warn!(%error, "garbage could not be collected; it will be tried again");
            }
        }
    }

    /// Collects now. When this returns, what was garbage before the call is gone.
    ///
    /// # Errors
    /// Those of [`Metadata::collect`].
    pub(crate) async fn collect(&self) -> Result<()> {
        let collected = self.metadata.collect().await?;
        tracing::debug!(
            blobs = collected.blobs.len(),
            bytes = collected.bytes,
            snapshots = collected.snapshots.len(),
            "garbage collected"
        );
        self.publish(collected)
    }

    /// Publishes the removals that have events.
    fn publish(&self, collected: Collected) -> Result<()> {
        for (namespace, name) in collected.images {
            self.events.publish(&namespace, "/images/delete", &ImageDelete { name })?;
        }
        for (namespace, digest) in collected.content {
            self.events.publish(&namespace, "/content/delete", &ContentDelete { digest })?;
        }
        for snapshot in collected.snapshots {
            let event = SnapshotRemove { key: snapshot.key, snapshotter: snapshot.snapshotter };
            self.events.publish(&snapshot.namespace, "/snapshot/remove", &event)?;
        }
        Ok(())
    }
}
