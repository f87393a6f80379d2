//! List.

use berth_proto::berth::v1::ListImagesResponse;
use berth_types::Result;

use super::Images;

impl Images {
    /// All images, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn list(&self) -> Result<ListImagesResponse> {
        let mut images = Vec::new();
        for record in self.scope.images().list(&[])? {
            images.push(self.describe(&record).await?);
        }
        Ok(ListImagesResponse { images })
    }
}
