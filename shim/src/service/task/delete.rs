//! Delete: forgets a process that has ended; with the init goes the container.

use std::sync::Arc;

use berth_proto::containerd::events::TaskDelete;
use berth_proto::containerd::task::v3::{DeleteRequest, DeleteResponse};
use berth_types::{Error, Kind, Result};
use rustix::process::Signal;

use super::Task;
use crate::service::exit::{self, Exit};
use crate::service::process::{Phase, Process};

impl Task {
    /// # Errors
    /// NotFound without such a process, FailedPrecondition while it runs. After a failure of the
    /// teardown it may be called again.
    pub(super) async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse> {
        let process = self.process(&request.exec_id)?;
        let exit = self.exit_of(&process).await?;
        match process.pid() {
            // It never was: nobody has written anything.
            0 => process.streams.abandon(),
            _ => process.streams.close().await,
        }
        if process.is_init() {
            self.delete_container().await?;
        }
        if self.lock().remove(&process.exec_id).is_none() {
            return Err(Error::not_found(format!("{} was deleted meanwhile", process.describe())));
        }
        let response = exit.response(process.pid());
        if process.is_init() {
            self.lock().clear();
            self.events.push("/tasks/delete", &deleted(&self.id, &response));
        }
        Ok(response)
    }

    /// How `process` ended. One that was never started is ended now.
    async fn exit_of(&self, process: &Arc<Process>) -> Result<Exit> {
        match process.phase() {
            Phase::Stopped(exit) => Ok(exit),
            Phase::Running => {
                Err(Error::failed_precondition(format!("{} still runs", process.describe())))
            }
            Phase::Added if process.is_init() => {
                Err(Error::failed_precondition("the container is being created"))
            }
            Phase::Added => {
                // Nobody starts it from here on, and who waits for it learns that it never ran.
                let _step = process.begin(Phase::Added).map_err(|_| {
                    Error::failed_precondition(format!("{} is being started", process.describe()))
                })?;
                let exit = Exit::killed();
                process.stop(exit);
                Ok(exit)
            }
            Phase::Created => {
                match process.signal(Signal::KILL.as_raw()) {
                    // It has ended by itself, which is about to be told.
                    Err(error) if error.kind() == Kind::NotFound => {}
                    sent => sent?,
                }
                Ok(process.stopped().await)
            }
        }
    }

    async fn delete_container(&self) -> Result<()> {
        let container = self.container.write().await.take();
        let destroyed = match container {
            Some(container) => container.destroy().await,
            None => Ok(()),
        };
        destroyed.and(exit::forget(&self.bundle))
    }
}

fn deleted(id: &str, response: &DeleteResponse) -> TaskDelete {
    TaskDelete {
        container_id: id.to_owned(),
        pid: response.pid,
        exit_status: response.exit_status,
        exited_at: response.exited_at,
        // As containerd's shims leave it: the init.
        id: String::new(),
    }
}
