//! Pause and Unpause: freeze a container's processes and let them go on.

use berth_proto::berth::v1::{PauseRequest, PauseResponse, State, UnpauseRequest, UnpauseResponse};
use berth_types::{Error, Result};

use super::find::Found;
use super::{Containers, state};

impl Containers {
    /// Freezes the processes of a running container.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it does not run, or is paused.
    pub async fn pause(&self, request: PauseRequest) -> Result<PauseResponse> {
        let found = self.find(&request.container)?;
        match self.condition(&found.id, found.row.as_ref()).await.state {
            State::Running => {}
            State::Paused => return Err(refusal(&found, "is already paused")),
            State::Unknown => return Err(state::unknown(&found.id)),
            _ => return Err(refusal(&found, "is not running")),
        }
        self.engine.parts().tasks.get(self.namespace(), &found.id)?.pause().await?;
        Ok(PauseResponse { id: found.id })
    }

    /// Lets the processes of a paused container go on.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it is not paused.
    pub async fn unpause(&self, request: UnpauseRequest) -> Result<UnpauseResponse> {
        let found = self.find(&request.container)?;
        match self.condition(&found.id, found.row.as_ref()).await.state {
            State::Paused => {}
            State::Unknown => return Err(state::unknown(&found.id)),
            _ => return Err(refusal(&found, "is not paused")),
        }
        self.engine.parts().tasks.get(self.namespace(), &found.id)?.resume().await?;
        Ok(UnpauseResponse { id: found.id })
    }
}

fn refusal(found: &Found, why: &str) -> Error {
    Error::failed_precondition(format!("Container {} {why}", found.shown()))
}
