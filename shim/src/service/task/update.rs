//! Update: changes the limits of the container.

use berth_proto::containerd::task::v3::UpdateTaskRequest;
use berth_types::spec::Resources;
use berth_types::{Error, Result};

use super::Shim;

impl Shim {
    /// # Errors
    /// NotFound without a container, InvalidArgument for limits that can't be.
    pub(super) async fn update(&self, request: UpdateTaskRequest) -> Result<()> {
        let document = request.resources.map(|any| any.value).unwrap_or_default();
        let resources: Resources = serde_json::from_slice(&document)
            .map_err(|error| Error::invalid_argument(format!("resources: {error}")))?;
        self.with_cgroup(&request.id, |cgroup| cgroup.update(&resources)).await
    }
}
