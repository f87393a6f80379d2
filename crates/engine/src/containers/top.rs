//! Top: tells of a container's processes.

use berth_proto::berth::v1::{State, TopRequest, TopResponse};
use berth_types::{Error, Result};

use super::{Containers, state};

impl Containers {
    /// The processes of a container that runs, by their ids in the host's pidns.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it does not run.
    pub async fn top(&self, request: TopRequest) -> Result<TopResponse> {
        let found = self.find(&request.container)?;
        match self.condition(&found.id, found.row.as_ref()).await.state {
            State::Running | State::Paused => {}
            State::Unknown => return Err(state::unknown(&found.id)),
            _ => {
                return Err(Error::failed_precondition(format!(
                    "Container {} is not running",
                    found.shown()
                )));
            }
        }
        let task = self.engine.parts().tasks.get(self.namespace(), &found.id)?;
        let pids = task.pids().await?.into_iter().map(|process| process.pid).collect();
        Ok(TopResponse { pids })
    }
}
