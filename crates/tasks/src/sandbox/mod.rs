//! Sandboxes: shims that are there before the containers that they are for.
//!
//! What a sandbox is made of is its shim's affair: nothing, a process, a virtual machine. Here it is
//! a bundle and a shim that answers the service of sandboxes. Containers are made in it by its id
//! (see [`crate::Create`]). It ends when it is shut down, or when its shim dies.

mod create;
mod end;
mod recover;

use std::sync::Arc;
use std::time::Duration;

use berth_proto::containerd::runtime::sandbox::v1::{
    PlatformRequest, PlatformResponse, SandboxMetricsRequest, SandboxMetricsResponse,
    SandboxStatusRequest, SandboxStatusResponse, StopSandboxRequest, StopSandboxResponse,
    WaitSandboxRequest, WaitSandboxResponse,
};
use berth_proto::containerd::types::{Metric, Platform};
use berth_types::{Kind, Result};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::Bootstrap;
use crate::bundle::Bundle;
use crate::create::Started;
use crate::exit::{Announcement, Exit};
use crate::log::LogRelay;
use crate::runtime::Runtime;
use crate::shim::{self, Shim};
use crate::{Tasks, recover as recovery};
pub use create::CreateSandbox;

/// How long a shim takes to stop its containers when nobody says.
const GRACE: u32 = 10;
/// What a shim may need besides, in seconds.
const MARGIN: u32 = 20;

/// One sandbox. Every method has a deadline, and can fail with
/// `DeadlineExceeded`, naming the step, or with `Unavailable` when the shim is just dying.
pub struct Sandbox {
    bundle: Bundle,
    pub(crate) runtime: Runtime,
    /// Its task service.
    shim: Shim,
    /// Its service of sandboxes.
    service: Shim,
    log: Arc<LogRelay>,
    exit: Announcement,
    /// Held by whoever ends the sandbox.
    ending: Mutex<()>,
    /// Set when the sandbox is no longer in the table.
    gone: CancellationToken,
}

impl Sandbox {
    fn new(bundle: Bundle, runtime: Runtime, shim: Shim, log: Arc<LogRelay>) -> Self {
        Self {
            bundle,
            runtime,
            service: shim.for_sandbox(),
            shim,
            log,
            exit: Announcement::default(),
            ending: Mutex::new(()),
            gone: CancellationToken::new(),
        }
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    /// Where its shim listens, and the version of the task service there.
    pub fn endpoint(&self) -> (String, u32) {
        let address = format!("ttrpc+unix://{}", self.shim.socket().display());
        (address, self.version() as u32)
    }

    /// Our own shim has both versions of the service.
    fn version(&self) -> i32 {
        match self.runtime {
            Runtime::Own => 3,
            Runtime::Foreign(_) => self.shim.version(),
        }
    }

    /// The shim, for another container of the sandbox.
    ///
    /// # Errors
    /// When the bundle can't be written.
    pub(crate) fn join(&self, bundle: &Bundle) -> Result<Started> {
        bundle.remember_sandbox(self.id())?;
        match &self.runtime {
            Runtime::Own => bundle.remember_socket(self.shim.socket())?,
            Runtime::Foreign(binary) => {
                bundle.remember_binary(binary)?;
                bundle.remember_bootstrap(&Bootstrap {
                    version: self.version(),
                    address: format!("unix://{}", self.shim.socket().display()),
                    protocol: "ttrpc".to_owned(),
                })?;
            }
        }
        Ok(Started { shim: self.shim.for_container(bundle), log: self.log.clone(), child: None })
    }

    /// What its containers run on.
    pub async fn platform(&self) -> Result<Option<Platform>> {
        let request = PlatformRequest { sandbox_id: self.id().to_owned() };
        let response: PlatformResponse = self.service.call(shim::PLATFORM, &request).await?;
        Ok(response.platform)
    }

    /// What the shim knows of it, with `verbose` more than everybody needs.
    pub async fn status(&self, verbose: bool) -> Result<SandboxStatusResponse> {
        let request = SandboxStatusRequest { sandbox_id: self.id().to_owned(), verbose };
        self.service.call(shim::SANDBOX_STATUS, &request).await
    }

    /// What it consumes.
    pub async fn metrics(&self) -> Result<Option<Metric>> {
        let request = SandboxMetricsRequest { sandbox_id: self.id().to_owned() };
        let response: SandboxMetricsResponse =
            self.service.call(shim::SANDBOX_METRICS, &request).await?;
        Ok(response.metrics)
    }

    /// Ends what runs in it, which has `seconds` for that; 0 leaves it to the shim. A sandbox that
    /// has ended already is stopped.
    pub async fn stop(&self, seconds: u32) -> Result<()> {
        let grace = if seconds == 0 { GRACE } else { seconds };
        let limit = Duration::from_secs(grace.saturating_add(MARGIN).into());
        let step = shim::step("StopSandbox", limit.as_secs());
        let request =
            StopSandboxRequest { sandbox_id: self.id().to_owned(), timeout_secs: seconds };
        match self.service.call::<_, StopSandboxResponse>(step, &request).await {
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Waits until it has ended, also by its shim's death.
    async fn wait(&self) -> Result<Exit> {
        let request = WaitSandboxRequest { sandbox_id: self.id().to_owned() };
        match self.service.call::<_, WaitSandboxResponse>(shim::WAIT_SANDBOX, &request).await {
            Ok(response) => Ok(Exit { status: response.exit_status, at: response.exited_at }),
            Err(error) if recovery::dead(error.kind()) => Ok(self.exit.wait().await),
            Err(error) => Err(error),
        }
    }
}

impl Tasks {
    /// A sandbox.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn sandbox(&self, namespace: &str, id: &str) -> Result<Arc<Sandbox>> {
        self.sandboxes.get(namespace, id)
    }

    /// Waits until a sandbox has ended; subscribers hear of it first.
    ///
    /// # Errors
    /// `NotFound`, and the shim's own.
    pub async fn wait_sandbox(&self, namespace: &str, id: &str) -> Result<Exit> {
        let sandbox = self.sandbox(namespace, id)?;
        let exit = sandbox.wait().await?;
        self.announce_sandbox_exit(&sandbox, exit);
        Ok(exit)
    }
}
