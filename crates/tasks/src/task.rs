//! One task, and what can be asked of it while it is there.
//!
//! Nothing here is locked across a call: a shim orders the calls of its container itself. Only
//! who ends a task takes its lock (see `end.rs`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use berth_proto::containerd::task::v3::{
    CheckpointTaskRequest, CloseIoRequest, DeleteRequest, DeleteResponse, ExecProcessRequest,
    KillRequest, PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use berth_proto::containerd::v1::types::{ProcessInfo, Status};
use berth_types::{Error, Kind, Result};
use prost_types::Any;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::bundle::Bundle;
use crate::exit::{Announcement, Exit};
use crate::log::LogRelay;
use crate::runtime::Runtime;
use crate::shim::{self, Shim};

/// One task: a container's processes under their shim. `exec_id` names a further process of the
/// container; empty, it names the init.
///
/// Every method but [`Task::wait`] and [`Task::attach`] has a deadline, and can fail with
/// `DeadlineExceeded`, naming the step, or with `Unavailable` when the shim is just dying.
/// Dropping a returned future forgets the answer; what was asked is still done.
pub struct Task {
    pub(crate) bundle: Bundle,
    pub(crate) runtime: Runtime,
    pub(crate) shim: Shim,
    /// Of the init, or 0 when it isn't known.
    pub(crate) pid: AtomicU32,
    /// How the init was by the shim's last answer that told of it: a [`Status`].
    status: AtomicI32,
    /// How the init ended.
    exit: Announcement,
    /// Held by whoever ends the task.
    pub(crate) ending: Mutex<()>,
    /// Set when the task has been ended and is no longer in the table.
    pub(crate) gone: CancellationToken,
    pub(crate) log: Arc<LogRelay>,
    /// The group that shares the shim; not known yet of a task taken over from an earlier daemon.
    group: OnceLock<Option<String>>,
}

impl Task {
    pub(crate) fn new(bundle: Bundle, runtime: Runtime, shim: Shim, log: Arc<LogRelay>) -> Self {
        Self {
            bundle,
            runtime,
            shim,
            pid: AtomicU32::new(0),
            status: AtomicI32::new(Status::Unknown.into()),
            exit: Announcement::default(),
            ending: Mutex::new(()),
            gone: CancellationToken::new(),
            log,
            group: OnceLock::new(),
        }
    }

    /// Notes which group the task belongs to.
    pub(crate) fn join(&self, group: Option<String>) {
        // A group that was looked up already is the same.
        let _ = self.group.set(group);
    }

    /// Whether the task belongs to `group`, in a shim of our own.
    pub(crate) fn is_of(&self, group: &str) -> bool {
        self.runtime == Runtime::Own && self.group() == Some(group)
    }

    /// The group that shares the shim.
    pub(crate) fn group(&self) -> Option<&str> {
        // A bundle that can't be read has lost its group; its container goes on without.
        self.group.get_or_init(|| self.bundle.group().ok().flatten()).as_deref()
    }

    /// The id, which is its container's.
    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.bundle.namespace
    }

    /// The init's pid in the host's pidns; 0 for a task taken over from an earlier daemon whose
    /// shim hung then.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// How the init is, as far as that is known without asking the shim: what changes it passes
    /// through here, and its end is announced. That it is known may take the time of an event.
    pub fn known(&self) -> (Status, Option<Exit>) {
        match self.exit() {
            Some(exit) => (Status::Stopped, Some(exit)),
            None => {
                let status = Status::try_from(self.status.load(Ordering::Relaxed));
                (status.unwrap_or_default(), None)
            }
        }
    }

    /// Notes how the init is by an answer of the shim.
    pub(crate) fn note(&self, status: Status) {
        self.status.store(status.into(), Ordering::Relaxed);
    }

    fn id_owned(&self) -> String {
        self.bundle.id.clone()
    }

    /// Starts a process that was created; returns its pid.
    pub async fn start(&self, exec_id: &str) -> Result<u32> {
        let request = StartRequest { id: self.id_owned(), exec_id: exec_id.to_owned() };
        let StartResponse { pid } = self.shim.call(shim::START, &request).await?;
        if exec_id.is_empty() {
            self.note(Status::Running);
        }
        Ok(pid)
    }

    /// What the shim knows of a process.
    pub async fn state(&self, exec_id: &str) -> Result<StateResponse> {
        let request = StateRequest { id: self.id_owned(), exec_id: exec_id.to_owned() };
        let state: StateResponse = self.shim.call(shim::STATE, &request).await?;
        if exec_id.is_empty() {
            self.note(state.status());
        }
        Ok(state)
    }

    /// Sends a signal to a process, or to all of the container.
    pub async fn kill(&self, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        let request = KillRequest { id: self.id_owned(), exec_id: exec_id.to_owned(), signal, all };
        self.shim.call(shim::KILL, &request).await
    }

    /// Adds a process, to be started with [`Task::start`]. The request's `id` is set here.
    pub async fn exec(&self, request: ExecProcessRequest) -> Result<()> {
        berth_types::id::validate("exec id", &request.exec_id)?;
        let request = ExecProcessRequest { id: self.id_owned(), ..request };
        self.shim.call(shim::EXEC, &request).await
    }

    /// The processes, by their pids in the host's pidns.
    pub async fn pids(&self) -> Result<Vec<ProcessInfo>> {
        let request = PidsRequest { id: self.id_owned() };
        let PidsResponse { processes } = self.shim.call(shim::PIDS, &request).await?;
        Ok(processes)
    }

    /// Freezes all processes.
    pub async fn pause(&self) -> Result<()> {
        self.shim.call::<_, ()>(shim::PAUSE, &PauseRequest { id: self.id_owned() }).await?;
        self.note(Status::Paused);
        Ok(())
    }

    /// Thaws all processes.
    pub async fn resume(&self) -> Result<()> {
        self.shim.call::<_, ()>(shim::RESUME, &ResumeRequest { id: self.id_owned() }).await?;
        self.note(Status::Running);
        Ok(())
    }

    /// Sets the size of a process's terminal, in characters.
    pub async fn resize_pty(&self, exec_id: &str, width: u32, height: u32) -> Result<()> {
        let exec_id = exec_id.to_owned();
        let request = ResizePtyRequest { id: self.id_owned(), exec_id, width, height };
        self.shim.call(shim::RESIZE_PTY, &request).await
    }

    /// Closes a process's standard input, once what is in it is read.
    pub async fn close_io(&self, exec_id: &str) -> Result<()> {
        let exec_id = exec_id.to_owned();
        let request = CloseIoRequest { id: self.id_owned(), exec_id, stdin: true };
        self.shim.call(shim::CLOSE_IO, &request).await
    }

    /// Changes the limits: `resources` is an encoded OCI `LinuxResources`.
    pub async fn update(
        &self,
        resources: Option<Any>,
        annotations: HashMap<String, String>,
    ) -> Result<()> {
        let request = UpdateTaskRequest { id: self.id_owned(), resources, annotations };
        self.shim.call(shim::UPDATE, &request).await
    }

    /// The cgroup's figures, in the message of the cgroup version that the shim found.
    pub async fn stats(&self) -> Result<Any> {
        let request = StatsRequest { id: self.id_owned() };
        let StatsResponse { stats } = self.shim.call(shim::STATS, &request).await?;
        stats.ok_or_else(|| Error::internal(format!("the shim of {} gave no stats", self.id())))
    }

    /// Writes a checkpoint into the directory `path`.
    pub async fn checkpoint(&self, path: &str, options: Option<Any>) -> Result<()> {
        let request = CheckpointTaskRequest { id: self.id_owned(), path: path.to_owned(), options };
        self.shim.call(shim::CHECKPOINT, &request).await
    }

    /// Waits until a process has ended, also if its shim dies with it.
    pub async fn wait(&self, exec_id: &str) -> Result<Exit> {
        let request = WaitRequest { id: self.id_owned(), exec_id: exec_id.to_owned() };
        match self.shim.call::<_, WaitResponse>(shim::WAIT, &request).await {
            Ok(response) => Ok(Exit { status: response.exit_status, at: response.exited_at }),
            Err(error) if error.kind() == Kind::Unavailable => {
                let init = self.exit.wait().await;
                Ok(if exec_id.is_empty() { init } else { Exit { status: 137, ..init } })
            }
            Err(error) => Err(error),
        }
    }

    /// Returns once the task is no more: deleted, or cleaned up after its shim's death.
    pub async fn ended(&self) {
        self.gone.cancelled().await;
    }

    /// Removes a process that has ended, but not the init: see [`crate::Tasks::delete`].
    pub async fn delete_process(&self, exec_id: &str) -> Result<DeleteResponse> {
        berth_types::id::validate("exec id", exec_id)?;
        let request = DeleteRequest { id: self.id_owned(), exec_id: exec_id.to_owned() };
        self.shim.call(shim::DELETE, &request).await
    }

    /// Notes how the init ended. Returns whether that is news.
    pub(crate) fn announce(&self, exit: Exit) -> bool {
        self.exit.make(exit)
    }

    /// How the init ended, as far as announced.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.exit.get()
    }
}
