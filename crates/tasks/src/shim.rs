//! A connection to a shim, and the calls that are made over it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_ttrpc::{Client, Options};
use berth_types::{Error, Kind, Result};
use prost::Message;

use crate::bundle::Bundle;

/// How long a shim may take to accept a connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);

/// The service of shims that can be there before their containers.
const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// One method of a service, and how long a shim may take over it.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    method: &'static str,
    /// `None` for the calls that wait for the container or the sandbox itself.
    limit: Option<Duration>,
}

pub(crate) const fn step(method: &'static str, seconds: u64) -> Step {
    Step { method, limit: Some(Duration::from_secs(seconds)) }
}

// Questions and signals are answered from memory. What runs hooks or mounts gets longer, a
// checkpoint as long as writing the memory of the container may take.
pub(crate) const STATE: Step = step("State", 5);
pub(crate) const CONNECTED: Step = step("Connect", 5);
pub(crate) const PIDS: Step = step("Pids", 5);
pub(crate) const STATS: Step = step("Stats", 5);
pub(crate) const KILL: Step = step("Kill", 10);
pub(crate) const RESIZE_PTY: Step = step("ResizePty", 10);
pub(crate) const CLOSE_IO: Step = step("CloseIO", 10);
pub(crate) const PAUSE: Step = step("Pause", 10);
pub(crate) const RESUME: Step = step("Resume", 10);
pub(crate) const UPDATE: Step = step("Update", 10);
pub(crate) const SHUTDOWN: Step = step("Shutdown", 3);
pub(crate) const CREATE: Step = step("Create", 60);
pub(crate) const START: Step = step("Start", 60);
pub(crate) const EXEC: Step = step("Exec", 20);
pub(crate) const DELETE: Step = step("Delete", 30);
pub(crate) const CHECKPOINT: Step = step("Checkpoint", 600);
pub(crate) const WAIT: Step = Step { method: "Wait", limit: None };

pub(crate) const CREATE_SANDBOX: Step = step("CreateSandbox", 60);
pub(crate) const START_SANDBOX: Step = step("StartSandbox", 60);
pub(crate) const PLATFORM: Step = step("Platform", 5);
pub(crate) const SANDBOX_STATUS: Step = step("SandboxStatus", 5);
pub(crate) const SANDBOX_METRICS: Step = step("SandboxMetrics", 5);
pub(crate) const SHUTDOWN_SANDBOX: Step = step("ShutdownSandbox", 20);
pub(crate) const WAIT_SANDBOX: Step = Step { method: "WaitSandbox", limit: None };

/// A connection to a shim, for one of its containers, or for the sandbox that it is.
pub(crate) struct Shim {
    client: Client,
    /// Where the shim listens.
    socket: PathBuf,
    /// Of its task service: 2 or 3.
    version: i32,
    service: &'static str,
    /// What the calls are about, for messages.
    whose: String,
    /// The tenant, which shims take from each call.
    metadata: Vec<(String, String)>,
}

impl Shim {
    /// Connects to the shim of `bundle`, whose task service has `version` 2 or 3: to that service.
    ///
    /// # Errors
    /// `Unavailable` when nobody listens on `socket`, `DeadlineExceeded` when nobody accepts.
    pub(crate) async fn connect(bundle: &Bundle, socket: &Path, version: i32) -> Result<Self> {
        let client = tokio::time::timeout(CONNECT, Client::connect(socket))
            .await
            .unwrap_or_else(|_| Err(hangs(&bundle.whose(), "a connection", CONNECT)))?;
        let service =
            if version == 3 { "containerd.task.v3.Task" } else { "containerd.task.v2.Task" };
        let metadata = vec![("containerd-namespace-ttrpc".to_owned(), bundle.namespace.clone())];
        let (socket, whose) = (socket.to_owned(), bundle.whose());
        Ok(Self { client, socket, version, service, whose, metadata })
    }

    /// The same connection, for another container of the shim.
    pub(crate) fn for_container(&self, bundle: &Bundle) -> Self {
        self.with(self.service, bundle.whose())
    }

    /// The same connection, to the service of sandboxes.
    pub(crate) fn for_sandbox(&self) -> Self {
        self.with(SANDBOX, self.whose.clone())
    }

    fn with(&self, service: &'static str, whose: String) -> Self {
        let Self { client, socket, version, metadata, .. } = self;
        let (client, socket, metadata) = (client.clone(), socket.clone(), metadata.clone());
        Self { client, socket, version: *version, service, whose, metadata }
    }

    /// Where the shim listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The version of its task service.
    pub(crate) fn version(&self) -> i32 {
        self.version
    }

    /// Makes one call.
    ///
    /// # Errors
    /// The shim's, with its kind; `DeadlineExceeded`, naming the step, when it hangs;
    /// `Unavailable` when it is gone.
    pub(crate) async fn call<Q, R>(&self, step: Step, request: &Q) -> Result<R>
    where
        Q: Message,
        R: Message + Default,
    {
        let options = Options { timeout: step.limit, metadata: self.metadata.clone() };
        let outcome = self.client.call(self.service, step.method, request, &options).await;
        outcome.map_err(|error| match (error.kind(), step.limit) {
            (Kind::DeadlineExceeded, Some(limit)) => hangs(&self.whose, step.method, limit),
            (Kind::Unavailable, _) => error.context(format!("the shim of {}", self.whose)),
            _ => error,
        })
    }

    /// Returns once the connection is gone: the shim has ended, or has been told to.
    pub(crate) async fn closed(&self) {
        self.client.closed().await;
    }
}

fn hangs(whose: &str, step: &str, limit: Duration) -> Error {
    Error::deadline_exceeded(format!(
        "the shim of {whose} did not answer {step} within {} s; it may still do so later",
        limit.as_secs()
    ))
}
