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

#[cfg(test)]
mod tests {
    use berth_content::ContentStore;
    use berth_proto::containerd::services::images::v1::Image;
    use berth_proto::containerd::types::Descriptor;
    use berth_store::Store;
    use berth_types::Digest;
    use berth_types::labels::GC_EXPIRE;
    use tokio::time::Instant;

    use super::*;

    /// An image that has expired, of which nobody says anything.
    fn expired(name: &str) -> Image {
        Image {
            name: name.to_owned(),
            labels: [(GC_EXPIRE.to_owned(), "2001-01-01T00:00:00Z".to_owned())].into(),
            target: Some(Descriptor {
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                digest: Digest::of(b"x").to_string(),
                size: 1,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Nothing but the collector's own waiting moves this clock.
    #[tokio::test(start_paused = true)]
    async fn garbage_goes_some_time_after_deletions_and_now_and_then_without() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("berth.db")).unwrap();
        let content = ContentStore::open(directory.path()).unwrap();
        let metadata = Metadata::open(store, content, vec![], None).await.unwrap();
        let images = metadata.scope("default", None).unwrap();
        let events = Exchange::new();
        let mut told = events.subscribe(&[]).unwrap();
        for (name, deleted, wait) in [("a", true, GATHER), ("b", false, INTERVAL)] {
            images.images().create(expired(name)).await.unwrap();
            let begin = Instant::now();
            let collector = Collector::new(metadata.clone(), events.clone());
            let running = tokio::spawn(collector.run());
            if deleted {
                metadata.trigger();
            }
            let envelope = told.next().await.unwrap();
            assert_eq!(envelope.topic, "/images/delete");
            assert_eq!(begin.elapsed(), wait, "{name}");
            assert!(images.images().list(&[]).unwrap().is_empty());
            running.abort();
        }
    }
}
