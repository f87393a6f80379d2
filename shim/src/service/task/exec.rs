//! Exec: makes a further process known, which Start then runs.

use std::sync::Arc;

use berth_proto::containerd::events::TaskExecAdded;
use berth_proto::containerd::task::v3::ExecProcessRequest;
use berth_types::{Error, Result, id, spec};

use super::Task;
use crate::service::process::{Phase, Process};
use crate::service::stdio::Names;

impl Task {
    /// # Errors
    /// AlreadyExists for an id in use, FailedPrecondition when the container has ended or is paused,
    /// InvalidArgument for a request that can't be right.
    pub(super) fn exec(&self, request: ExecProcessRequest) -> Result<()> {
        self.check_alive()?;
        id::validate("exec id", &request.exec_id)?;
        let names = Names {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let document = request.spec.map(|any| any.value).unwrap_or_default();
        let spec: spec::Process = serde_json::from_slice(&document)
            .map_err(|error| Error::invalid_argument(format!("process of an exec: {error}")))?;
        let process = Arc::new(Process::new(&request.exec_id, names, Some(spec))?);
        let mut processes = self.lock();
        if processes.contains_key(&request.exec_id) {
            let message = format!("exec {:?} exists in container {:?}", request.exec_id, self.id);
            return Err(Error::already_exists(message));
        }
        processes.insert(request.exec_id.clone(), process);
        drop(processes);
        let event = TaskExecAdded { container_id: request.id, exec_id: request.exec_id };
        self.events.push("/tasks/exec-added", &event);
        Ok(())
    }

    fn check_alive(&self) -> Result<()> {
        // The words that containerd's clients know.
        let refuse = |state| {
            let message = format!("container {}: cannot exec in a {state} state", self.id);
            Err(Error::failed_precondition(message))
        };
        match self.process("")?.phase() {
            Phase::Created | Phase::Running if self.is_paused() => refuse("paused"),
            Phase::Created | Phase::Running => Ok(()),
            Phase::Stopped(_) => refuse("stopped"),
            Phase::Added => {
                Err(Error::failed_precondition(format!("container {} is not running", self.id)))
            }
        }
    }
}
