//! State and Wait: where a process stands, and its end.

use berth_proto::containerd::task::v3::{StateRequest, StateResponse, WaitRequest, WaitResponse};
use berth_proto::containerd::v1::types::Status;
use berth_sys::cgroup::Cgroup;
use berth_types::Result;

use super::Task;
use crate::service::process::Phase;

impl Task {
    /// # Errors
    /// NotFound without such a process.
    pub(super) fn state(&self, request: StateRequest) -> Result<StateResponse> {
        let process = self.process(&request.exec_id)?;
        let exit = match process.phase() {
            Phase::Stopped(exit) => Some(exit),
            _ => None,
        };
        let status = match process.status() {
            Status::Running if self.is_paused() => Status::Paused,
            status => status,
        };
        let names = process.names.clone();
        Ok(StateResponse {
            id: request.id,
            bundle: self.bundle.to_string_lossy().into_owned(),
            pid: process.pid() as u32,
            status: status.into(),
            stdin: names.stdin,
            stdout: names.stdout,
            stderr: names.stderr,
            terminal: names.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.and_then(|exit| exit.timestamp()),
            exec_id: request.exec_id,
        })
    }

    /// As the kernel says. A container that is just being changed is not paused.
    pub(super) fn is_paused(&self) -> bool {
        let container = self.container.try_read();
        let cgroup = container.as_ref().ok().and_then(|container| container.as_ref());
        cgroup.is_some_and(|container| Cgroup::is_frozen(container.cgroup()).unwrap_or(false))
    }

    /// # Errors
    /// NotFound without such a process.
    pub(super) async fn wait(&self, request: WaitRequest) -> Result<WaitResponse> {
        let process = self.process(&request.exec_id)?;
        let exit = process.stopped().await;
        Ok(WaitResponse { exit_status: exit.status, exited_at: exit.timestamp() })
    }
}
