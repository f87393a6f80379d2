//! Exec: runs a further process in a running container.

use std::sync::Arc;

use berth_proto::berth::v1::{ExecOptions, Exited, State};
use berth_proto::containerd::task::v3::ExecProcessRequest;
use berth_tasks::{Attachment, Exit, Task};
use berth_types::spec::{self, Spec};
use berth_types::{Error, Kind, Result};
use prost_types::Any;

use super::find::Found;
use super::session::{Attached, Process};
use super::{Containers, options, state};
use crate::live::Run;
use crate::name;

/// What a process in a request is called, as containerd's clients call it.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

impl Containers {
    /// Starts a further process, attached unless it is to be detached.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when the container does not run; `InvalidArgument` for
    /// options that can't be right; the shim's when the command can't be run.
    pub async fn exec(&self, options: ExecOptions) -> Result<Attached> {
        let found = self.find(&options.container)?;
        let live = self.engine.0.lives.enter(self.namespace(), &found.id);
        let attendance = live.attend();
        let task = self.running(&found).await?;
        let process = self.process(&found.id, &options)?;
        let exec_id = name::new_id()?;
        let request = request(&exec_id, &process, &options)?;
        task.exec(request).await?;
        match start(&task, &exec_id, !options.detach).await {
            Ok((pid, attachment)) => {
                let run = Arc::new(Run::default());
                let own = run.attend();
                tokio::spawn(see_off(task.clone(), exec_id.clone(), run));
                let process = Process { task, exec_id, pid };
                let attachment = attachment.map(|attachment| (attachment, options.stdin));
                Ok(Attached::new(process, attachment, vec![own, attendance]))
            }
            Err(error) => {
                forget(&task, &exec_id).await;
                Err(error)
            }
        }
    }

    async fn running(&self, found: &Found) -> Result<Arc<Task>> {
        let id = &found.id;
        let condition = self.condition(id, found.row.as_ref()).await;
        match (condition.state, self.engine.parts().tasks.get(self.namespace(), id)) {
            (State::Running, Ok(task)) => Ok(task),
            (State::Paused, _) => Err(Error::failed_precondition(format!(
                "Container {id} is paused, unpause the container before exec"
            ))),
            (State::Unknown, Ok(_)) => Err(state::unknown(id)),
            _ => Err(Error::failed_precondition(format!("container {id} is not running"))),
        }
    }

    /// What is to run, with the rights of the container's init.
    fn process(&self, id: &str, options: &ExecOptions) -> Result<spec::Process> {
        let spec = self.record(id)?.spec.unwrap_or_default().value;
        let malformed = |why: &dyn std::fmt::Display| {
            Error::invalid_argument(format!("the specification of container {id}: {why}"))
        };
        let spec: Spec = serde_json::from_slice(&spec).map_err(|error| malformed(&error))?;
        let init = spec.process.ok_or_else(|| malformed(&"it has no process"))?;
        init.exec(&spec::ExecOptions {
            command: options.command.clone(),
            env: options.env.clone(),
            working_directory: options.working_directory.clone(),
            user: options.user.clone(),
            tty: options.tty,
            console_size: options.tty.then(|| options::console_size(options.window_size)),
        })
    }
}

fn request(
    exec_id: &str,
    process: &spec::Process,
    options: &ExecOptions,
) -> Result<ExecProcessRequest> {
    let value = serde_json::to_vec(process)
        .map_err(|error| Error::internal(format!("write a specification: {error}")))?;
    let stream = |wanted: bool, name: &str| if wanted { name.to_owned() } else { String::new() };
    Ok(ExecProcessRequest {
        exec_id: exec_id.to_owned(),
        terminal: options.tty,
        stdin: stream(options.stdin && !options.detach, "attach:once"),
        stdout: stream(!options.detach, "attach:"),
        stderr: stream(!options.detach && !options.tty, "attach:"),
        spec: Some(Any { type_url: PROCESS_TYPE.to_owned(), value }),
        ..ExecProcessRequest::default()
    })
}

async fn start(task: &Task, exec_id: &str, attach: bool) -> Result<(u32, Option<Attachment>)> {
    let attachment = if attach { Some(task.attach(exec_id, true).await?) } else { None };
    Ok((task.start(exec_id).await?, attachment))
}

/// Waits for the end of a process, tells it, and lets the shim forget the process once the client
/// has read all.
async fn see_off(task: Arc<Task>, exec_id: String, run: Arc<Run>) {
    match task.wait(&exec_id).await {
        Ok(Exit { status: code, at }) => run.end(Exited { code, at, oom_killed: false }),
        Err(error) => {
            tracing::warn!(id = task.id(), exec_id, %error, "how a process ended is not known");
            run.end(Exited { code: 255, ..Exited::default() });
        }
    }
    run.unattended().await;
    forget(&task, &exec_id).await;
}

async fn forget(task: &Task, exec_id: &str) {
    match task.delete_process(exec_id).await {
        // With its container a process is forgotten too.
        Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => {
            tracing::warn!(id = task.id(), exec_id, %error, "an ended process is left behind");
        }
        _ => {}
    }
}
