//! Pause and Resume: freezes all processes of the container, and lets them go on.

use berth_proto::containerd::events::{TaskPaused, TaskResumed};
use berth_proto::containerd::task::v3::{PauseRequest, ResumeRequest};
use berth_sys::cgroup::Cgroup;
use berth_types::{Error, Result};

use super::{Shim, no_container};
use crate::container;

impl Shim {
    /// # Errors
    /// FailedPrecondition when the container doesn't run or is paused; DeadlineExceeded when a
    /// process can't be frozen, and then all go on.
    pub(super) async fn pause(&self, request: PauseRequest) -> Result<()> {
        self.check_running(&request.id)?;
        match &*self.container.read().await {
            Some(container) => container::freeze(container.cgroup(), &request.id).await?,
            None => return Err(no_container(&request.id)),
        }
        self.events.push("/tasks/paused", &TaskPaused { container_id: request.id });
        Ok(())
    }

    /// # Errors
    /// FailedPrecondition when the container doesn't run or isn't paused.
    pub(super) async fn resume(&self, request: ResumeRequest) -> Result<()> {
        self.check_running(&request.id)?;
        if !self.with_cgroup(&request.id, Cgroup::is_frozen).await? {
            let message = format!("container {} is not paused", request.id);
            return Err(Error::failed_precondition(message));
        }
        self.with_cgroup(&request.id, Cgroup::thaw).await?;
        self.events.push("/tasks/resumed", &TaskResumed { container_id: request.id });
        Ok(())
    }
}
