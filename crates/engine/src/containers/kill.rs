//! Kill: sends one signal to a container's init.

use berth_proto::berth::v1::{KillRequest, KillResponse, State};
use berth_tasks::Task;
use berth_types::signal::SIGKILL;
use berth_types::{Error, Kind, Result};
use std::time::Duration;

use super::Containers;
use crate::live::Run;

/// How long a killed process may take to end. One that hangs in the kernel may take for ever.
pub(super) const DEATH: Duration = Duration::from_secs(10);

impl Containers {
    /// Sends a signal to a container's init; after SIGKILL it waits for the end.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it does not run; `InvalidArgument` for what is no
    /// signal; `DeadlineExceeded` when a killed process does not end.
    pub async fn kill(&self, request: KillRequest) -> Result<KillResponse> {
        let found = self.find(&request.container)?;
        let live = self.engine.0.lives.enter(self.namespace(), &found.id);
        let run = live.run();
        let condition = self.condition(&found.id, found.row.as_ref()).await;
        let not_running = || {
            let id = &found.id;
            let shown = found.shown();
            Error::failed_precondition(format!(
                "cannot kill container: {shown}: container {id} is not running"
            ))
        };
        if !matches!(condition.state, State::Running | State::Paused | State::Unknown) {
            return Err(not_running());
        }
        let task = self.engine.parts().tasks.get(self.namespace(), &found.id);
        let task = task.map_err(|_| not_running())?;
        let signal = if request.signal == 0 { SIGKILL as u32 } else { request.signal };
        task.kill("", signal, false).await.map_err(|error| match error.kind() {
            Kind::NotFound => not_running(),
            _ => error,
        })?;
        if signal == SIGKILL as u32 {
            death(&task).await?;
            self.noted(&found.id, &run).await;
        }
        Ok(KillResponse { id: found.id })
    }

    /// Waits until the end of a container's `run` is known to all who may be asked next, such as
    /// for the removal of its image: its process has ended before that.
    pub(super) async fn noted(&self, id: &str, run: &Run) {
        let is_running = self.row(id).ok().flatten().is_some_and(|row| row.is_running());
        // An end that nobody tells of is found by others.
        if is_running && tokio::time::timeout(DEATH, run.ended()).await.is_err() {
            tracing::warn!(id, "the end of a container is not noted yet");
        }
    }
}

/// Waits for the end of a killed init.
///
/// # Errors
/// `DeadlineExceeded` when it does not come.
pub(super) async fn death(task: &Task) -> Result<()> {
    match tokio::time::timeout(DEATH, task.wait("")).await {
        // One that is gone has ended too.
        Ok(Err(error)) if error.kind() != Kind::NotFound => Err(error),
        Ok(_) => Ok(()),
        Err(_) => Err(Error::deadline_exceeded(format!(
            "process {} of container {} did not end within {} s of SIGKILL: it hangs in the kernel",
            task.pid(),
            task.id(),
            DEATH.as_secs()
        ))),
    }
}
