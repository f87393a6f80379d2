//! `pause`: stops all processes of a container for a while.

use berth_types::{Error, Result};
use containerd_shim_berth_v1::container;

use crate::record::{Records, Status};

/// Pauses a container.
#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    /// The container's id
    id: String,
}

impl Pause {
    /// # Errors
    /// NotFound without such a container, FailedPrecondition when it isn't running.
    pub(crate) async fn run(self, records: &Records) -> Result<()> {
        // For itself: nobody deletes it, and makes another one of that name, meanwhile.
        let found = records.claim(&self.id).await?;
        match found.status()? {
            Status::Created | Status::Running => {
                container::freeze(found.remains()?.cgroup(), &self.id).await
            }
            _ => Err(Error::failed_precondition("container not running or created")),
        }
    }
}
