//! `start`: lets the process of a created container become its program.

use berth_types::{Error, Result};

use crate::lock;
use crate::record::{CONFIG, Records, Status};

/// Starts a container.
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    /// The container's id
    id: String,
}

impl Start {
    /// # Errors
    /// NotFound without such a container, FailedPrecondition when it is not there to be started.
    pub(crate) async fn run(self, records: &Records) -> Result<()> {
        let found = records.find(&self.id)?;
        let busy = || format!("container {} is being started", self.id);
        // Of all who start it one is the first, and the others see that.
        let first = lock::wait(&found.path.join(CONFIG), busy).await?;
        match found.status()? {
            Status::Created => {
                found.container()?.start().await?;
                drop(first);
                Ok(())
            }
            Status::Stopped => {
                Err(Error::failed_precondition("cannot start a container that has stopped"))
            }
            Status::Running => {
                Err(Error::failed_precondition("cannot start an already running container"))
            }
            Status::Paused => {
                Err(Error::failed_precondition("cannot start a container in the paused state"))
            }
        }
    }
}
