//! Restart: stops a container and starts it again.

use berth_proto::berth::v1::{RestartRequest, RestartResponse, StartRequest, StopRequest};
use berth_types::{Error, Result};

use super::Containers;
use super::start::own_row;
use crate::rows::Row;

impl Containers {
    /// Stops a container, if it runs, and starts it.
    ///
    /// # Errors
    /// Those of a stop and of a start; `FailedPrecondition` for one that is removed when it ends.
    pub async fn restart(&self, request: RestartRequest) -> Result<RestartResponse> {
        let found = self.find(&request.container)?;
        if own_row(&found).is_ok_and(Row::is_temporary) {
            return Err(Error::failed_precondition(format!(
                "container {} is removed when it ends (--rm): it can't be restarted",
                found.shown()
            )));
        }
        own_row(&found)?;
        let id = found.id;
        let RestartRequest { timeout_seconds, signal, .. } = request;
        self.stop(StopRequest { container: id.clone(), timeout_seconds, signal }).await?;
        self.start(StartRequest { container: id.clone() }).await?;
        Ok(RestartResponse { id })
    }
}
