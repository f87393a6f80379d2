//! An image as clients see it.

use berth_proto::berth::v1::Image;
use berth_proto::containerd::services::images::v1::Image as Record;
use berth_pull::Resolved;
use berth_types::{Kind, Platform, Result};
use prost_types::Timestamp;

use super::{Images, target};

impl Images {
    /// What there is to say of an image: of what it is on this machine, or else of what is here
    /// of it for another platform. Of one without content that is its name and digest.
    ///
    /// # Errors
    /// `DataLoss` for a damaged record; those of the database.
    pub(super) async fn describe(&self, record: &Record) -> Result<Image> {
        self.describe_for(record, &Platform::host()).await
    }

    /// The same, of what it is on `platform`.
    ///
    /// # Errors
    /// As for [`describe`](Self::describe).
    pub(super) async fn describe_for(&self, record: &Record, platform: &Platform) -> Result<Image> {
        let digest = target(record)?.digest.to_string();
        let image =
            Image { id: digest.clone(), name: record.name.clone(), digest, ..Image::default() };
        match self.present(record, platform).await {
            Ok(resolved) => Ok(Image {
                id: resolved.config.digest.to_string(),
                created_at: resolved.image.created.as_deref().and_then(parse_time),
                size: self.size(&resolved).await?,
                platform: resolved.image.platform().to_string(),
                ..image
            }),
            Err(error) if error.kind() == Kind::NotFound => Ok(image),
            Err(error) => {
                tracing::warn!(name = record.name, %error, "an image can't be read");
                Ok(image)
            }
        }
    }

    /// What the unpacked layers take.
    async fn size(&self, image: &Resolved) -> Result<u64> {
        let snapshots = self.scope.snapshots(&self.snapshotter_of(image).await?)?;
        let mut size = 0;
        for layer in &image.layers {
            match snapshots.usage(layer.chain_id.as_str()).await {
                Ok(usage) => size += usage.size,
                // It was never unpacked here.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(size)
    }
}

impl Images {
    /// The snapshotter that has an image: that of new containers, or another if only that has it.
    async fn snapshotter_of(&self, image: &Resolved) -> Result<String> {
        let usual = self.scope.snapshotter()?;
        let Some(chain) = image.chain_id() else { return Ok(usual) };
        let others = self.scope.metadata().snapshotters().filter(|name| *name != usual);
        for name in std::iter::once(usual.as_str()).chain(others) {
            if self.scope.snapshots(name)?.stat(chain.as_str()).await.is_ok() {
                return Ok(name.to_owned());
            }
        }
        Ok(usual)
    }
}

/// An RFC 3339 time; `None` for what is none.
fn parse_time(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() })
}
