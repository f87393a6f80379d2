//! The end of a process: recorded on disk, then told to who waits, then to the daemon.

use std::sync::Arc;

use berth_proto::containerd::events::TaskExit;

use super::Task;
use crate::service::exit::{self, Exit};
use crate::service::process::Process;

impl Task {
    /// The reaper has the exit of `process`. Announcing it holds up nobody else's exit.
    pub(crate) fn process_ended(self: &Arc<Self>, process: Arc<Process>, exit: Exit) {
        if process.ended(exit) {
            let task = self.clone();
            tokio::spawn(async move { task.announce(&process, exit).await });
        }
    }

    /// Announces an exit that came while a step was under way.
    pub(super) async fn announce_held(&self, process: &Arc<Process>, exit: Option<Exit>) {
        if let Some(exit) = exit {
            self.announce(process, exit).await;
        }
    }

    async fn announce(&self, process: &Arc<Process>, exit: Exit) {
        let _turn = self.announcing.lock().await;
        process.streams.process_ended().await;
        if process.is_init() {
            self.report_memory().await;
            self.end_the_rest().await;
            let response = exit.response(process.pid());
            if let Err(error) = exit::record(&self.bundle, &response) {
                tracing::error!("an exit is only kept in memory: {error}");
            }
        }
        process.stop(exit);
        let id = if process.is_init() { &self.id } else { &process.exec_id };
        let event = TaskExit {
            container_id: self.id.clone(),
            id: id.clone(),
            pid: process.pid() as u32,
            exit_status: exit.status,
            exited_at: exit.timestamp(),
        };
        self.events.push("/tasks/exit", &event);
        if process.is_init() {
            self.let_go_of_root();
        }
    }

    /// Without its init a container is over. The kernel sees to that in a pidns of its own; in a
    /// shared one its other processes are left.
    async fn end_the_rest(&self) {
        if let Some(container) = &*self.container.read().await
            && let Err(error) = container.cgroup().kill_all()
        {
            tracing::warn!("processes may be left of a container without an init: {error}");
        }
    }
}
