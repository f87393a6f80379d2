//! `delete`: a container that has ended, or any by force.

use berth_types::{Error, Kind, Result};

use crate::record::{Records, Status};

/// Deletes a container.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// Kill it first if it runs; that there is none is fine
    #[arg(short, long)]
    force: bool,
    /// The container's id
    id: String,
}

impl Delete {
    /// # Errors
    /// NotFound without such a container, FailedPrecondition when it runs, Aborted while another
    /// command is at work on it.
    pub(crate) async fn run(self, records: &Records) -> Result<()> {
        if self.force {
            records.clear(&self.id).await?;
        }
        let found = match records.claim(&self.id).await {
            Err(error) if error.kind() == Kind::NotFound && self.force => return Ok(()),
            found => found?,
        };
        let status = found.status()?;
        if matches!(status, Status::Running | Status::Paused) && !self.force {
            return Err(Error::failed_precondition(format!(
                "cannot delete container {} that is not stopped: {}",
                self.id,
                status.word()
            )));
        }
        found.delete().await
    }
}
