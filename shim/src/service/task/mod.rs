//! containerd's task service for one container, one file for each verb.

mod create;
mod delete;
mod exec;
mod exited;
mod kill;
mod oom;
mod pause;
mod pids;
mod root;
mod shutdown;
mod start;
mod state;
mod stats;
mod streams;
mod update;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_sys::cgroup::Cgroup;
use berth_ttrpc::{Handler, Request, Stream};
use berth_types::{Error, Result};
use prost::Message;
use tokio::sync::{Notify, RwLock};

use super::attach;
use super::events::Events;
use super::process::{Phase, Process};
use super::reaper::Reaper;
use crate::container::Container;

/// The names of the task service; the messages are the same.
const TASK: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
const STREAMS: &str = "berth.shim.v1.Streams";

/// What this shim is in charge of: one container with its processes.
pub(crate) struct Shim {
    /// The container's id.
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) events: Events,
    pub(crate) reaper: Reaper,
    /// Woken by Shutdown.
    pub(crate) shutdown: Notify,
    /// From Create to Delete. Written by what changes the container as a whole.
    container: RwLock<Option<Container>>,
    /// By exec id; the init's is empty.
    processes: Mutex<BTreeMap<String, Arc<Process>>>,
    out_of_memory: oom::Count,
    /// Keeps the init's end from waiting for its root filesystem to be written back.
    root: Mutex<Option<OwnedFd>>,
}

impl Shim {
    /// No container yet.
    pub(crate) fn new(namespace: String, id: String, bundle: PathBuf) -> Self {
        Self {
            id,
            bundle,
            events: Events::new(namespace),
            reaper: Reaper::new(),
            shutdown: Notify::new(),
            container: RwLock::new(None),
            processes: Mutex::default(),
            out_of_memory: oom::Count::default(),
            root: Mutex::default(),
        }
    }

    async fn call_task(self: &Arc<Self>, request: &Request) -> Result<Vec<u8>> {
        match request.method.as_str() {
            "State" => answer(self.state(request.decode()?)),
            "Create" => answer(self.create(request.decode()?).await),
            "Start" => answer(self.start(request.decode()?).await),
            "Delete" => answer(self.delete(request.decode()?).await),
            "Pids" => answer(self.pids(request.decode()?).await),
            "Pause" => answer(self.pause(request.decode()?).await),
            "Resume" => answer(self.resume(request.decode()?).await),
            "Kill" => answer(self.kill(request.decode()?).await),
            "Exec" => answer(self.exec(request.decode()?)),
            "ResizePty" => answer(self.resize_pty(request.decode()?)),
            "CloseIO" => answer(self.close_io(request.decode()?)),
            "Update" => answer(self.update(request.decode()?).await),
            "Wait" => tokio::select! {
                exit = self.wait(request.decode()?) => answer(exit),
                () = request.abandoned() => Err(Error::cancelled("the caller left")),
            },
            "Stats" => answer(self.stats(request.decode()?).await),
            "Connect" => answer(self.connect(request.decode()?)),
            "Shutdown" => answer(self.shut_down(request.decode()?)),
            "Checkpoint" => Err(Error::unimplemented("this shim makes no checkpoints")),
            _ => Err(request.unimplemented()),
        }
    }

    /// Checks that a request means this shim's container.
    pub(crate) fn check_id(&self, id: &str) -> Result<()> {
        if id == self.id { Ok(()) } else { Err(no_container(id)) }
    }

    /// The process that a request means.
    ///
    /// # Errors
    /// NotFound when there is none.
    pub(crate) fn process(&self, id: &str, exec_id: &str) -> Result<Arc<Process>> {
        self.check_id(id)?;
        self.lock().get(exec_id).cloned().ok_or_else(|| match exec_id {
            "" => no_container(id),
            _ => Error::not_found(format!("container {id:?} has no exec {exec_id:?}")),
        })
    }

    /// Runs `work` on the control group of the container, which is there.
    async fn with_cgroup<T>(&self, id: &str, work: impl FnOnce(&Cgroup) -> Result<T>) -> Result<T> {
        self.check_id(id)?;
        match &*self.container.read().await {
            Some(container) => work(container.cgroup()),
            None => Err(no_container(id)),
        }
    }

    /// Checks that the init runs, which is what pausing and the like need.
    fn check_running(&self, id: &str) -> Result<()> {
        match self.process(id, "")?.phase() {
            Phase::Running => Ok(()),
            _ => Err(Error::failed_precondition(format!("container {id} is not running"))),
        }
    }

    /// Every change is one step, so that a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_container(id: &str) -> Error {
    Error::not_found(format!("container {id:?} is not here: not created, or deleted"))
}

fn answer<M: Message>(outcome: Result<M>) -> Result<Vec<u8>> {
    outcome.map(|message| message.encode_to_vec())
}

/// The service, as the server wants it.
pub(crate) struct Service(pub(crate) Arc<Shim>);

impl Handler for Service {
    async fn call(&self, request: Request) -> Result<Vec<u8>> {
        if TASK.contains(&&*request.service) {
            self.0.call_task(&request).await
        } else {
            Err(request.unimplemented())
        }
    }

    async fn stream(&self, request: Request, stream: Stream) -> Result<()> {
        match (&*request.service, &*request.method) {
            (STREAMS, "Attach") => attach::attach(&self.0, &request, stream).await,
            _ => Err(request.unimplemented()),
        }
    }
}
