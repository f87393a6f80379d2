//! From a container's record and a client's request to a task.

use berth_metadata::Scope;
use berth_proto::containerd::services::tasks::v1::{CreateTaskRequest, CreateTaskResponse};
use berth_tasks::{Create, Tasks};
use berth_types::{Error, Result};

/// Creates the task of a container.
///
/// # Errors
/// `NotFound` without the container, `Unimplemented` for a checkpoint, and those of
/// [`Tasks::create`].
pub(super) async fn create(
    tasks: Tasks,
    scope: Scope,
    request: CreateTaskRequest,
) -> Result<CreateTaskResponse> {
    if request.checkpoint.is_some() {
        return Err(Error::unimplemented("checkpoints are not supported"));
    }
    let container = scope.containers().get(&request.container_id)?;
    let runtime = container.runtime.unwrap_or_default();
    // A client's options for the task count before those of the container.
    let options = request.options.filter(|options| !options.value.is_empty());
    let create = Create {
        namespace: scope.namespace().to_owned(),
        id: request.container_id.clone(),
        runtime: if request.runtime_path.is_empty() { runtime.name } else { request.runtime_path },
        spec: container.spec.unwrap_or_default().value,
        options: options.or(runtime.options),
        rootfs: request.rootfs,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
        checkpoint: String::new(),
        sandbox: container.sandbox,
    };
    let task = tasks.create(create).await?;
    Ok(CreateTaskResponse { container_id: request.container_id, pid: task.pid() })
}
