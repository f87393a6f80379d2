//! Stop: asks a container to end, and then makes it.

use std::time::Duration;

use berth_proto::berth::v1::{State, StopRequest, StopResponse};
use berth_tasks::Task;
use berth_types::signal::{SIGKILL, SIGTERM};
use berth_types::{Kind, Result};

use super::Containers;
use super::kill::death;

/// How long a container has, in seconds, unless said otherwise.
const GRACE: i64 = 10;

impl Containers {
    /// Sends the stop signal, waits, then kills. A container that does not run is stopped already.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for what is no signal; `DeadlineExceeded` when a killed
    /// process does not end.
    pub async fn stop(&self, request: StopRequest) -> Result<StopResponse> {
        let found = self.find(&request.container)?;
        let live = self.engine.0.lives.enter(self.namespace(), &found.id);
        let run = live.run();
        let Ok(task) = self.engine.parts().tasks.get(self.namespace(), &found.id) else {
            return Ok(StopResponse { id: found.id });
        };
        let own = found.row.as_ref().map_or(SIGTERM, |row| row.stop_signal);
        let signal = if request.signal == 0 { own as u32 } else { request.signal };
        let condition = self.condition(&found.id, found.row.as_ref()).await;
        if matches!(condition.state, State::Running | State::Paused | State::Unknown) {
            signalled(&task, signal).await?;
            if condition.state == State::Paused {
                // What is frozen can't heed a signal.
                gone_is_fine(task.resume().await)?;
            }
            let grace = request.timeout_seconds.unwrap_or(GRACE);
            if !ended_within(&task, grace).await? {
                signalled(&task, SIGKILL as u32).await?;
            }
            death(&task).await?;
        }
        self.noted(&found.id, &run).await;
        Ok(StopResponse { id: found.id })
    }
}

async fn signalled(task: &Task, signal: u32) -> Result<()> {
    gone_is_fine(task.kill("", signal, false).await)
}

/// It may end at any moment.
fn gone_is_fine(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => Ok(()),
        outcome => outcome,
    }
}

/// Waits for the end, for ever when `seconds` is negative.
async fn ended_within(task: &Task, seconds: i64) -> Result<bool> {
    let ended = async { gone_is_fine(task.wait("").await.map(drop)) };
    match u64::try_from(seconds) {
        Err(_) => ended.await.map(|()| true),
        Ok(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), ended).await {
            Ok(outcome) => outcome.map(|()| true),
            Err(_) => Ok(false),
        },
    }
}
