//! Processes as clients see them.

use std::sync::Arc;

use futures_util::future::join_all;

use berth_proto::containerd::task::v3::StateResponse;
use berth_proto::containerd::v1::types::Process;
use berth_tasks::Task;
use berth_types::Kind;

/// The process `exec_id`, or the init when that is empty, of a container.
pub(super) fn to_wire(container_id: String, exec_id: String, state: StateResponse) -> Process {
    Process {
        id: if exec_id.is_empty() { container_id.clone() } else { exec_id },
        container_id,
        pid: state.pid,
        status: state.status,
        stdin: state.stdin,
        stdout: state.stdout,
        stderr: state.stderr,
        terminal: state.terminal,
        exit_status: state.exit_status,
        exited_at: state.exited_at,
    }
}

/// The inits of `tasks`, asked all at once. One whose shim does not answer is left out and
/// reported in the log, so that it does not hide the others.
pub(super) async fn list(tasks: Vec<Arc<Task>>) -> Vec<Process> {
    let states = tasks.iter().map(|task| async move {
        match task.state("").await {
            Ok(state) => Some(to_wire(task.id().to_owned(), String::new(), state)),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => None,
            Err(error) => {
                tracing::warn!(id = task.id(), %error, "a task is missing from a list");
                None
            }
        }
    });
    join_all(states).await.into_iter().flatten().collect()
}
