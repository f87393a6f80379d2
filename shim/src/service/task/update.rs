//! Update: changes the limits of the container.

use berth_proto::containerd::task::v3::UpdateTaskRequest;
use berth_types::spec::Resources;
use berth_types::{Result, ResultExt};

use super::Task;
use crate::container;

impl Task {
    /// # Errors
    /// NotFound without a container, InvalidArgument for limits that can't be.
    pub(super) async fn update(&self, request: UpdateTaskRequest) -> Result<()> {
        let document = request.resources.map(|any| any.value).unwrap_or_default();
        let resources: Resources = container::parse(&document).context(|| "resources")?;
        self.with_cgroup(|cgroup| cgroup.update(&resources)).await
    }
}
