//! The sandbox service of the shim API: a place for containers that share one shim.
//!
//! A sandbox is nothing but that here, no process of its own: the daemon, which makes it, also
//! makes the namespaces that its containers join. From Create to Shutdown the shim stays, whether
//! it has a container or not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use berth_proto::containerd::runtime::sandbox::v1 as api;
use berth_proto::containerd::types::{Metric, Platform as WirePlatform};
use berth_ttrpc::Request;
use berth_types::{Error, Platform, Result};
use rustix::process::Signal;
use tokio::sync::watch;

use super::shim::{Shim, answer};
use super::task::Task;

pub(crate) const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// Containers have so long to end when Stop names no time.
const GRACE: Duration = Duration::from_secs(10);

/// And those that are killed then have so long.
const KILLED: Duration = Duration::from_secs(5);

/// Where a sandbox stands, from Create to Shutdown.
#[derive(Clone, Copy, Debug)]
struct State {
    created_at: SystemTime,
    started: bool,
    exited_at: Option<SystemTime>,
}

/// A sandbox, or the place for one.
#[derive(Default)]
pub(crate) struct Sandbox {
    state: Mutex<Option<State>>,
    stopped: watch::Sender<bool>,
    shut_down: AtomicBool,
}

impl Sandbox {
    /// Whether a daemon has made one.
    pub(crate) fn is_there(&self) -> bool {
        self.lock().is_some()
    }

    /// Whether there was one, which has been shut down. Its last container then ends the shim:
    /// daemons don't tell a sandbox's shim to end.
    pub(crate) fn is_over(&self) -> bool {
        self.shut_down.load(Ordering::Relaxed)
    }

    fn create(&self, id: &str) -> Result<()> {
        let mut state = self.lock();
        if state.is_some() {
            return Err(Error::already_exists(format!("sandbox {id:?} exists")));
        }
        *state = Some(State { created_at: SystemTime::now(), started: false, exited_at: None });
        self.stopped.send_replace(false);
        self.shut_down.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn start(&self, id: &str) -> Result<State> {
        let mut state = self.lock();
        match &mut *state {
            None => Err(missing(id)),
            Some(State { exited_at: Some(_), .. }) => {
                Err(Error::failed_precondition(format!("sandbox {id:?} is stopped")))
            }
            Some(state) => {
                state.started = true;
                Ok(*state)
            }
        }
    }

    fn get(&self, id: &str) -> Result<State> {
        self.lock().ok_or_else(|| missing(id))
    }

    fn stop(&self) {
        if let Some(state) = &mut *self.lock() {
            state.exited_at.get_or_insert_with(SystemTime::now);
        }
        self.stopped.send_replace(true);
    }

    fn remove(&self) {
        self.stop();
        *self.lock() = None;
        self.shut_down.store(true, Ordering::Relaxed);
    }

    /// Every change is one step, so that a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// In the words of containerd's clients.
    fn name(&self) -> &'static str {
        match self {
            Self { exited_at: Some(_), .. } | Self { started: false, .. } => "SANDBOX_NOTREADY",
            _ => "SANDBOX_READY",
        }
    }
}

/// Answers one call of the service.
///
/// # Errors
/// NotFound for another sandbox than this shim's, or before Create and after Shutdown;
/// AlreadyExists for a second Create; FailedPrecondition when it is stopped.
pub(crate) async fn call(shim: &Arc<Shim>, request: &Request) -> Result<Vec<u8>> {
    // The id is the first field of every request of the service.
    let api::PingRequest { sandbox_id: id } = request.decode()?;
    if id != shim.id {
        return Err(missing(&id));
    }
    let sandbox = &shim.sandbox;
    match request.method.as_str() {
        "CreateSandbox" => {
            answer(sandbox.create(&id).map(|()| api::CreateSandboxResponse::default()))
        }
        "StartSandbox" => answer(sandbox.start(&id).map(|state| api::StartSandboxResponse {
            pid: std::process::id(),
            created_at: Some(state.created_at.into()),
            spec: None,
        })),
        "Platform" => answer(sandbox.get(&id).map(|_| platform())),
        "StopSandbox" => answer(stop(shim, request.decode()?).await),
        "WaitSandbox" => tokio::select! {
            exit = wait(shim, &id) => answer(exit),
            () = request.abandoned() => Err(Error::cancelled("the caller left")),
        },
        "SandboxStatus" => answer(sandbox.get(&id).map(|state| status(shim, state))),
        "PingSandbox" => answer(sandbox.get(&id).map(|_| api::PingResponse::default())),
        "ShutdownSandbox" => answer(shut_down(shim, &id)),
        "SandboxMetrics" => answer(sandbox.get(&id).map(|_| metrics(&id))),
        _ => Err(request.unimplemented()),
    }
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("sandbox {id:?} is not here: not created, or shut down"))
}

fn platform() -> api::PlatformResponse {
    let Platform { os, architecture, variant, .. } = Platform::host();
    let platform = WirePlatform { os, architecture, variant, ..Default::default() };
    api::PlatformResponse { platform: Some(platform) }
}

fn status(shim: &Shim, state: State) -> api::SandboxStatusResponse {
    api::SandboxStatusResponse {
        sandbox_id: shim.id.clone(),
        pid: std::process::id(),
        state: state.name().to_owned(),
        info: HashMap::new(),
        created_at: Some(state.created_at.into()),
        exited_at: state.exited_at.map(Into::into),
        extra: None,
    }
}

/// Its containers' figures are told with each of them.
fn metrics(id: &str) -> api::SandboxMetricsResponse {
    let metrics =
        Metric { timestamp: Some(SystemTime::now().into()), id: id.to_owned(), data: None };
    api::SandboxMetricsResponse { metrics: Some(metrics) }
}

/// Ends the containers: asks them first, and kills those that are left when their time is over.
async fn stop(
    shim: &Arc<Shim>,
    request: api::StopSandboxRequest,
) -> Result<api::StopSandboxResponse> {
    shim.sandbox.get(&request.sandbox_id)?;
    let grace = match request.timeout_secs {
        0 => GRACE,
        seconds => Duration::from_secs(seconds.into()),
    };
    let tasks = shim.tasks();
    tasks.iter().for_each(|task| task.signal_init(Signal::TERM));
    if tokio::time::timeout(grace, all_ended(&tasks)).await.is_err() {
        for task in &tasks {
            task.kill_init().await;
        }
        // What can't be killed is told of when it is deleted.
        let _ = tokio::time::timeout(KILLED, all_ended(&tasks)).await;
    }
    shim.sandbox.stop();
    Ok(api::StopSandboxResponse::default())
}

async fn all_ended(tasks: &[Arc<Task>]) {
    for task in tasks {
        task.ended().await;
    }
}

async fn wait(shim: &Shim, id: &str) -> Result<api::WaitSandboxResponse> {
    shim.sandbox.get(id)?;
    // The sender lives as long as the shim.
    let _ = shim.sandbox.stopped.subscribe().wait_for(|stopped| *stopped).await;
    let exited_at = shim.sandbox.get(id).ok().and_then(|state| state.exited_at);
    let exited_at = exited_at.unwrap_or_else(SystemTime::now);
    Ok(api::WaitSandboxResponse { exit_status: 0, exited_at: Some(exited_at.into()) })
}

/// The shim ends with its sandbox, once no container needs it.
fn shut_down(shim: &Shim, id: &str) -> Result<api::ShutdownSandboxResponse> {
    shim.sandbox.get(id)?;
    shim.sandbox.remove();
    shim.end_unless_needed();
    Ok(api::ShutdownSandboxResponse::default())
}
