//! Attach: connects a client with a container's init.

use std::sync::Arc;

use berth_proto::berth::v1::{AttachOptions, State};
use berth_tasks::Task;
use berth_types::{Error, Result};

use super::find::Found;
use super::session::{Attached, Process};
use super::{Containers, options, state};

impl Containers {
    /// Attaches to a container's init; starts the container first where that is asked for, so that
    /// nothing is missed.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it does not run; `Unimplemented` for a shim that
    /// offers no attach; those of a start.
    pub async fn attach(&self, options: AttachOptions) -> Result<Attached> {
        let found = self.find(&options.container)?;
        let live = self.engine.0.lives.enter(self.namespace(), &found.id);
        if options.start {
            let _changing = live.changing.lock().await;
            if !self.has_task(&found, &live).await? {
                let attached = self.start_again(&live, &found, true).await?;
                attached.resize(&options).await;
                return Ok(attached);
            }
        }
        let attendance = live.attend();
        let task = self.attachable(&found).await?;
        let attachment = task.attach("", options.start).await?;
        let process = Process { pid: task.pid(), task, exec_id: String::new() };
        let attachment = Some((attachment, options.stdin));
        let attached = Attached::new(process, attachment, vec![attendance]);
        attached.resize(&options).await;
        Ok(attached)
    }

    async fn attachable(&self, found: &Found) -> Result<Arc<Task>> {
        let refuse = |how| {
            Err(Error::failed_precondition(format!("You cannot attach to a {how} container")))
        };
        match self.condition(&found.id, found.row.as_ref()).await.state {
            State::Running => self.engine.parts().tasks.get(self.namespace(), &found.id),
            State::Paused => refuse("paused"),
            State::Unknown => Err(state::unknown(&found.id)),
            _ => refuse("stopped"),
        }
    }
}

impl Attached {
    /// Gives the terminal the size of the client's.
    async fn resize(&self, options: &AttachOptions) {
        if options.window_size.is_some() {
            self.set_size(options::console_size(options.window_size)).await;
        }
    }
}
