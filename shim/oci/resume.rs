//! `resume`: lets the processes of a paused container go on.

use berth_types::{Error, Result};

use crate::record::{Records, Status};

/// Resumes a container.
#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// The container's id
    id: String,
}

impl Resume {
    /// # Errors
    /// NotFound without such a container, FailedPrecondition when it isn't paused.
    pub(crate) async fn run(self, records: &Records) -> Result<()> {
        let found = records.claim(&self.id).await?;
        let remains = found.remains()?;
        // A container may be paused before it is started too.
        if found.status()? == Status::Stopped || !remains.cgroup().is_frozen()? {
            return Err(Error::failed_precondition("container not paused"));
        }
        remains.cgroup().thaw()
    }
}
