//! Wait: answers when a container's init has ended.

use berth_proto::berth::v1::{Exited, WaitRequest, WaitResponse};
use berth_types::Result;

use super::{Containers, state};

impl Containers {
    /// Waits for the end of a container's run; answers at once with how the last one ended when
    /// it does not run.
    ///
    /// # Errors
    /// `NotFound`; for another client's container those of its shim.
    pub async fn wait(&self, request: WaitRequest) -> Result<WaitResponse> {
        let id = self.find(&request.container)?.id;
        let live = self.engine.0.lives.enter(self.namespace(), &id);
        let run = live.run();
        let row = self.row(&id)?;
        let exited = match (self.engine.parts().tasks.get(self.namespace(), &id), row) {
            (Ok(task), None) => {
                let exit = task.wait("").await?;
                Exited { code: exit.status, at: exit.at, oom_killed: false }
            }
            (_, Some(row)) if row.is_running() => run.ended().await,
            (_, row) => row.as_ref().map(state::exited).unwrap_or_default(),
        };
        Ok(WaitResponse { exited: Some(exited) })
    }
}
