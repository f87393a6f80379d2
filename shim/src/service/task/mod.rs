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
use berth_ttrpc::Request;
use berth_types::{Error, Result};
use tokio::sync::RwLock;

use super::events::Events;
use super::process::{Phase, Process};
use super::reaper::Reaper;
use super::shim::answer;
use super::stdio::Writer;
use crate::container::Container;

/// The running thing of one container, with its processes.
pub(crate) struct Task {
    /// The container's id.
    pub(crate) id: String,
    bundle: PathBuf,
    events: Arc<Events>,
    reaper: Arc<Reaper>,
    /// From Create to Delete. Written by what changes the container as a whole.
    container: RwLock<Option<Container>>,
    /// By exec id; the init's is empty.
    processes: Mutex<BTreeMap<String, Arc<Process>>>,
    /// Held while an exit is announced, so that exits are told in the order in which they came.
    announcing: tokio::sync::Mutex<()>,
    out_of_memory: oom::Count,
    /// Keeps the init's end from waiting for its root filesystem to be written back.
    root: Mutex<Option<OwnedFd>>,
}

impl Task {
    /// No container yet.
    pub(crate) fn new(id: &str, bundle: PathBuf, events: Arc<Events>, reaper: Arc<Reaper>) -> Self {
        Self {
            id: id.to_owned(),
            bundle,
            events,
            reaper,
            container: RwLock::new(None),
            processes: Mutex::default(),
            announcing: tokio::sync::Mutex::default(),
            out_of_memory: oom::Count::default(),
            root: Mutex::default(),
        }
    }

    /// Answers a call that is about this container, other than Create.
    pub(crate) async fn call(self: &Arc<Self>, request: &Request) -> Result<Vec<u8>> {
        match request.method.as_str() {
            "State" => answer(self.state(request.decode()?)),
            "Start" => answer(self.start(request.decode()?).await),
            "Delete" => answer(self.delete(request.decode()?).await),
            "Pids" => answer(self.pids().await),
            "Pause" => answer(self.pause().await),
            "Resume" => answer(self.resume().await),
            "Kill" => answer(self.kill(request.decode()?).await),
            "Exec" => answer(self.exec(request.decode()?)),
            "ResizePty" => answer(self.resize_pty(request.decode()?)),
            "CloseIO" => answer(self.close_io(request.decode()?)),
            "Update" => answer(self.update(request.decode()?).await),
            "Wait" => tokio::select! {
                exit = self.wait(request.decode()?) => answer(exit),
                () = request.abandoned() => Err(Error::cancelled("the caller left")),
            },
            "Stats" => answer(self.stats().await),
            "Checkpoint" => Err(Error::unimplemented(
                "containers are not checkpointed here: that takes CRIU, which this runtime does \
                 not use",
            )),
            _ => Err(request.unimplemented()),
        }
    }

    /// The process that a request means.
    ///
    /// # Errors
    /// NotFound when there is none.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        self.lock().get(exec_id).cloned().ok_or_else(|| match exec_id {
            "" => no_container(&self.id),
            _ => Error::not_found(format!("container {:?} has no exec {exec_id:?}", self.id)),
        })
    }

    /// Who writes what a process `id` writes, as logging programs are told.
    fn writer<'a>(&'a self, id: &'a str) -> Writer<'a> {
        Writer { namespace: self.events.namespace(), id }
    }

    /// The init's process id; 0 before there is one.
    pub(crate) fn pid(&self) -> i32 {
        self.process("").map_or(0, |init| init.pid())
    }

    /// Sends the init a signal, if it can get one.
    pub(crate) fn signal_init(&self, signal: rustix::process::Signal) {
        let sent = self.process("").and_then(|init| init.signal(signal.as_raw()));
        if let Err(error) = sent {
            tracing::debug!("container {:?} got no signal: {error}", self.id);
        }
    }

    /// Returns once the init has ended.
    pub(crate) async fn ended(&self) {
        if let Ok(init) = self.process("") {
            init.stopped().await;
        }
    }

    /// Whether it was deleted.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_empty()
    }

    /// Runs `work` on the control group of the container, which is there.
    async fn with_cgroup<T>(&self, work: impl FnOnce(&Cgroup) -> Result<T>) -> Result<T> {
        match &*self.container.read().await {
            Some(container) => work(container.cgroup()),
            None => Err(no_container(&self.id)),
        }
    }

    /// Checks that the init runs, which is what pausing and the like need.
    fn check_running(&self) -> Result<()> {
        match self.process("")?.phase() {
            Phase::Running => Ok(()),
            _ => Err(Error::failed_precondition(format!("container {} is not running", self.id))),
        }
    }

    /// Every change is one step, so that a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The failure of what needs a container that isn't there.
pub(crate) fn no_container(id: &str) -> Error {
    Error::not_found(format!("container {id:?} is not here: not created, or deleted"))
}
