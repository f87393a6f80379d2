//! What one shim is in charge of: the container that it was started for, or all of a group, as
//! those of a pod.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_proto::berth::shim::v1::{ReopenLogsRequest, ReopenLogsResponse};
use berth_proto::containerd::task::v3::{
    ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, ShutdownRequest,
};
use berth_ttrpc::{Handler, Request, Stream};
use berth_types::{Error, Result, id};
use prost::Message;
use tokio::sync::Notify;

use super::attach;
use super::events::Events;
use super::reaper::Reaper;
use super::sandbox::{self, Sandbox};
use super::task::{Task, no_container};

/// The names of the task service; the messages are the same.
const TASK: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
const STREAMS: &str = "berth.shim.v1.Streams";

/// The shim.
pub(crate) struct Shim {
    /// The id that it was started with: a container's, or a sandbox's.
    pub(crate) id: String,
    bundle: PathBuf,
    pub(crate) events: Arc<Events>,
    pub(crate) reaper: Arc<Reaper>,
    /// Woken when the shim is to end.
    pub(crate) shutdown: Notify,
    /// The sandbox around the containers, if a daemon has made one.
    pub(crate) sandbox: Sandbox,
    tasks: Mutex<BTreeMap<String, Arc<Task>>>,
}

impl Shim {
    /// No container yet.
    pub(crate) fn new(namespace: String, id: String, bundle: PathBuf) -> Self {
        Self {
            id,
            bundle,
            events: Arc::new(Events::new(namespace)),
            reaper: Arc::new(Reaper::new()),
            shutdown: Notify::new(),
            sandbox: Sandbox::default(),
            tasks: Mutex::default(),
        }
    }

    /// The task of container `id`.
    ///
    /// # Errors
    /// NotFound.
    pub(crate) fn task(&self, id: &str) -> Result<Arc<Task>> {
        self.lock().get(id).cloned().ok_or_else(|| no_container(id))
    }

    /// All tasks.
    pub(crate) fn tasks(&self) -> Vec<Arc<Task>> {
        self.lock().values().cloned().collect()
    }

    async fn call_task(&self, request: &Request) -> Result<Vec<u8>> {
        match request.method.as_str() {
            "Create" => answer(self.create(request.decode()?).await),
            "Connect" => answer(Ok(self.connect(request.decode()?))),
            "Shutdown" => {
                let ShutdownRequest { .. } = request.decode()?;
                self.end_unless_needed();
                answer(Ok(()))
            }
            _ => {
                // The id is the first field of every request of the service.
                let ConnectRequest { id } = request.decode()?;
                let task = self.task(&id)?;
                let outcome = task.call(request).await;
                if task.is_over() {
                    self.forget(&task);
                    if self.sandbox.is_over() {
                        self.end_unless_needed();
                    }
                }
                outcome
            }
        }
    }

    async fn create(&self, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        let task = self.admit(&request)?;
        let created = task.create(request).await;
        if created.is_err() {
            self.forget(&task);
        }
        created
    }

    /// Makes the task known, so that no second Create succeeds.
    fn admit(&self, request: &CreateTaskRequest) -> Result<Arc<Task>> {
        id::validate("container id", &request.id)?;
        let bundle = match request.bundle.as_str() {
            "" if request.id == self.id => self.bundle.clone(),
            bundle => PathBuf::from(bundle),
        };
        if !bundle.is_absolute() {
            let message = format!("bundle {:?} is not an absolute path", request.bundle);
            return Err(Error::invalid_argument(message));
        }
        let task = Task::new(&request.id, bundle, self.events.clone(), self.reaper.clone());
        let mut tasks = self.lock();
        if tasks.contains_key(&request.id) {
            return Err(Error::already_exists(format!("container {:?} exists", request.id)));
        }
        let task = Arc::new(task);
        tasks.insert(request.id.clone(), task.clone());
        Ok(task)
    }

    fn forget(&self, task: &Arc<Task>) {
        let mut tasks = self.lock();
        if tasks.get(&task.id).is_some_and(|known| Arc::ptr_eq(known, task)) {
            tasks.remove(&task.id);
        }
    }

    /// Tells who the shim is. Unknown containers are none of the question's business.
    fn connect(&self, request: ConnectRequest) -> ConnectResponse {
        let init = self.task(&request.id).map_or(0, |task| task.pid());
        ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: init as u32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Ends the shim, unless there is a container or a sandbox. Being told to end `now` changes
    /// nothing about that: a container without a shim is out of everybody's hands.
    pub(crate) fn end_unless_needed(&self) {
        if self.lock().is_empty() && !self.sandbox.is_there() {
            self.shutdown.notify_one();
        }
    }

    /// Every change is one step, so that a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Task>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Encodes what a method answers.
pub(crate) fn answer<M: Message>(outcome: Result<M>) -> Result<Vec<u8>> {
    outcome.map(|message| message.encode_to_vec())
}

/// The services, as the server wants them.
pub(crate) struct Service(pub(crate) Arc<Shim>);

impl Handler for Service {
    async fn call(&self, request: Request) -> Result<Vec<u8>> {
        match &*request.service {
            service if TASK.contains(&service) => self.0.call_task(&request).await,
            STREAMS if request.method == "ReopenLogs" => {
                let ReopenLogsRequest { id, exec_id } = request.decode()?;
                let process = self.0.task(&id)?.process(&exec_id)?;
                answer(process.streams.reopen_logs().map(|()| ReopenLogsResponse {}))
            }
            sandbox::SERVICE => sandbox::call(&self.0, &request).await,
            _ => Err(request.unimplemented()),
        }
    }

    async fn stream(&self, request: Request, stream: Stream) -> Result<()> {
        match (&*request.service, &*request.method) {
            (STREAMS, "Attach") => attach::attach(&self.0, &request, stream).await,
            _ => Err(request.unimplemented()),
        }
    }
}
