//! Inspect.

use berth_proto::berth::v1::{InspectRequest, InspectResponse};
use berth_types::{Kind, Result};

use super::Containers;
use crate::files::Files;

impl Containers {
    /// All there is to say of a container.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn inspect(&self, request: InspectRequest) -> Result<InspectResponse> {
        let found = self.find(&request.container)?;
        let record = self.record(&found.id)?;
        let condition = self.condition(&found.id, found.row.as_ref()).await;
        let container = self.describe(&found.id, found.row.as_ref(), condition)?;
        let files = Files::of(&self.engine.parts().root, self.namespace(), &found.id);
        let log = found.row.as_ref().map(|_| files.log().to_string_lossy().into_owned());
        let image_config = self.image_config(&container.image_id)?;
        Ok(InspectResponse {
            container: Some(container),
            image_config,
            options: found.row.and_then(|row| row.options),
            spec: record.spec.unwrap_or_default().value,
            snapshotter: record.snapshotter,
            snapshot_key: record.snapshot_key,
            runtime: record.runtime.unwrap_or_default().name,
            log_path: log.unwrap_or_default(),
        })
    }

    /// What a container's image says; nothing when the image was removed, or is not known.
    fn image_config(&self, image_id: &str) -> Result<Vec<u8>> {
        let Ok(digest) = image_id.parse() else { return Ok(Vec::new()) };
        match self.engine.images(self.scope.clone()).document(&digest) {
            Err(error) if error.kind() == Kind::NotFound => Ok(Vec::new()),
            document => document,
        }
    }
}
