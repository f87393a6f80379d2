//! Inspect.

use std::io::Read;

use berth_proto::berth::v1::{InspectImageRequest, InspectImageResponse};
use berth_types::image::MAX_SIZE;
use berth_types::{Digest, Platform, Result, ResultExt};

use super::{Images, no_such_image};

impl Images {
    /// An image with its documents.
    ///
    /// # Errors
    /// `NotFound` without such an image, or without its content.
    pub async fn inspect(&self, request: InspectImageRequest) -> Result<InspectImageResponse> {
        let text = request.image;
        let record = self.find(&text).await?.ok_or_else(|| no_such_image(&text))?;
        let resolved = self.present(&record, &Platform::host()).await?;
        Ok(InspectImageResponse {
            image: Some(self.describe(&record).await?),
            config: self.document(&resolved.config.digest)?,
            manifest: self.document(&resolved.manifest.digest)?,
        })
    }

    /// A document of an image, as it is stored.
    ///
    /// # Errors
    /// `NotFound` when it is not here; those of the disk.
    pub(crate) fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let file = self.scope.content().reader(digest)?.file;
        let mut bytes = Vec::new();
        let read = file.take(MAX_SIZE).read_to_end(&mut bytes);
        read.context(|| format!("read content {digest}")).map(|_| bytes)
    }
}
