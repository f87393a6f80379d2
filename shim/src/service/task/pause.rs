//! Pause and Resume: freezes all processes of the container, and lets them go on.

use berth_proto::containerd::events::{TaskPaused, TaskResumed};
use berth_sys::cgroup::Cgroup;
use berth_types::{Error, Result};

use super::{Task, no_container};
use crate::container;

impl Task {
    /// # Errors
    /// FailedPrecondition when the container doesn't run or is paused; DeadlineExceeded when a
    /// process can't be frozen, and then all go on.
    pub(super) async fn pause(&self) -> Result<()> {
        self.check_running()?;
        match &*self.container.read().await {
            Some(container) => container::freeze(container.cgroup(), &self.id).await?,
            None => return Err(no_container(&self.id)),
        }
        self.events.push("/tasks/paused", &TaskPaused { container_id: self.id.clone() });
        Ok(())
    }

    /// # Errors
    /// FailedPrecondition when the container doesn't run or isn't paused.
    pub(super) async fn resume(&self) -> Result<()> {
        self.check_running()?;
        if !self.with_cgroup(Cgroup::is_frozen).await? {
            let message = format!("container {} is not paused", self.id);
            return Err(Error::failed_precondition(message));
        }
        self.with_cgroup(Cgroup::thaw).await?;
        self.events.push("/tasks/resumed", &TaskResumed { container_id: self.id.clone() });
        Ok(())
    }
}
