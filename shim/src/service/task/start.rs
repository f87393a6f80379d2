//! Start: lets the init become its program, or runs an exec.

use std::sync::Arc;

use berth_proto::containerd::events::{TaskExecStarted, TaskStart};
use berth_proto::containerd::task::v3::{StartRequest, StartResponse};
use berth_types::{Error, Kind, Result};

use super::{Task, no_container};
use crate::service::exit::Exit;
use crate::service::process::{Phase, Process, Step};
use crate::service::stdio::Owner;

impl Task {
    /// # Errors
    /// NotFound without such a process, FailedPrecondition when it was started before; else those
    /// of [`crate::container::Container::start`] and `exec`.
    pub(super) async fn start(self: &Arc<Self>, request: StartRequest) -> Result<StartResponse> {
        let process = self.process(&request.exec_id)?;
        if process.is_init() {
            self.start_init(&process).await?;
        } else {
            self.start_exec(&process).await?;
        }
        Ok(StartResponse { pid: process.pid() as u32 })
    }

    async fn start_init(self: &Arc<Self>, process: &Arc<Process>) -> Result<()> {
        let step = process.begin(Phase::Created)?;
        let outcome = match &mut *self.container.write().await {
            Some(container) => container.start().await,
            None => Err(no_container(&self.id)),
        };
        let exit = match &outcome {
            Ok(()) => {
                let event = TaskStart { container_id: self.id.clone(), pid: process.pid() as u32 };
                self.events.push("/tasks/start", &event);
                step.done(Phase::Running)
            }
            Err(_) => step.held(),
        };
        self.announce_held(process, exit).await;
        outcome
    }

    async fn start_exec(self: &Arc<Self>, process: &Arc<Process>) -> Result<()> {
        let step = process.begin(Phase::Added)?;
        let outcome = self.run_exec(process, &step).await;
        let exit = match &outcome {
            Ok(()) => {
                let event = TaskExecStarted {
                    container_id: self.id.clone(),
                    exec_id: process.exec_id.clone(),
                    pid: process.pid() as u32,
                };
                self.events.push("/tasks/exec-started", &event);
                step.done(Phase::Running)
            }
            Err(error) => {
                process.streams.abandon();
                let held = step.held();
                // A paused container takes it once it goes on.
                let later = error.kind() == Kind::FailedPrecondition && self.is_joinable();
                if process.pid() == 0 && !later {
                    // Who waits for it already would do so for ever.
                    process.stop(Exit::killed());
                }
                held
            }
        };
        self.announce_held(process, exit).await;
        outcome
    }

    /// An init that waits to be started can be joined too.
    fn is_joinable(&self) -> bool {
        let init = self.process("");
        init.is_ok_and(|init| matches!(init.phase(), Phase::Created | Phase::Running))
    }

    fn check_joinable(&self) -> Result<()> {
        match self.is_joinable() {
            true => Ok(()),
            false => Err(Error::failed_precondition(format!(
                "container {} init process is not running",
                self.id
            ))),
        }
    }

    async fn run_exec(self: &Arc<Self>, process: &Arc<Process>, step: &Step<'_>) -> Result<()> {
        self.check_joinable()?;
        let spec =
            process.spec.as_ref().ok_or_else(|| Error::internal("an exec without a spec"))?;
        let (io, ends) =
            process.streams.open(Owner::default(), self.writer(&process.exec_id)).await?;
        let container = self.container.read().await;
        let container = container.as_ref().ok_or_else(|| no_container(&self.id))?;
        let _expecting = self.reaper.expect();
        let started = container.exec(spec, io).await?;
        step.born(started.pid, &started.pidfd)?;
        if let Some(exit) = self.reaper.claim(started.pid, &started.pidfd, self, process) {
            step.hold(exit);
        }
        process.streams.connect(ends, started.terminal)
    }
}
