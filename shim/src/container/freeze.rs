//! Stopping all processes of a container for a while.

use std::time::Duration;

use berth_sys::cgroup::Cgroup;
use berth_types::{Error, Result};

/// How long the kernel may take to freeze them.
const FREEZE: Duration = Duration::from_secs(5);
/// How often it is asked.
const GLANCE: Duration = Duration::from_millis(2);

/// Freezes every process in `cgroup`, that of container `id`.
///
/// # Errors
/// FailedPrecondition when it is frozen; DeadlineExceeded when a process can't be frozen, and then
/// all go on.
pub async fn freeze(cgroup: &Cgroup, id: &str) -> Result<()> {
    if cgroup.is_frozen()? {
        return Err(Error::failed_precondition(format!("container {id} is paused already")));
    }
    let frozen = async {
        while !cgroup.freeze()? {
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    };
    let outcome = tokio::time::timeout(FREEZE, frozen).await.unwrap_or_else(|_| {
        Err(Error::deadline_exceeded(format!(
            "a process of container {id} could not be frozen within {FREEZE:?}"
        )))
    });
    if outcome.is_err() {
        cgroup.thaw()?;
    }
    outcome
}
