//! Pause and Resume: freezes all processes of the container, and lets them go on.

use std::time::Duration;

use berth_proto::containerd::events::{TaskPaused, TaskResumed};
use berth_proto::containerd::task::v3::{PauseRequest, ResumeRequest};
use berth_sys::cgroup::Cgroup;
use berth_types::{Error, Result};

use super::Shim;

/// How long the kernel may take to freeze them.
const FREEZE: Duration = Duration::from_secs(5);
/// How often it is asked.
const GLANCE: Duration = Duration::from_millis(2);

impl Shim {
    /// # Errors
    /// FailedPrecondition when the container doesn't run or is paused; DeadlineExceeded when a
    /// process can't be frozen, and then all go on.
    pub(super) async fn pause(&self, request: PauseRequest) -> Result<()> {
        self.check_running(&request.id)?;
        if self.with_cgroup(&request.id, Cgroup::is_frozen).await? {
            let message = format!("container {} is paused already", request.id);
            return Err(Error::failed_precondition(message));
        }
        let frozen = async {
            while !self.with_cgroup(&request.id, Cgroup::freeze).await? {
                tokio::time::sleep(GLANCE).await;
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(FREEZE, frozen).await.unwrap_or_else(|_| {
            Err(Error::deadline_exceeded(format!(
                "a process of container {} could not be frozen within {FREEZE:?}",
                request.id
            )))
        });
        if let Err(error) = outcome {
            self.with_cgroup(&request.id, Cgroup::thaw).await?;
            return Err(error);
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
