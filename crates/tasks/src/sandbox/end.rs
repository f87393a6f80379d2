//! The two ways in which a sandbox ends: it is shut down, or its shim dies.

use std::sync::Arc;
use std::time::SystemTime;

use berth_proto::containerd::events::SandboxExit;
use berth_proto::containerd::runtime::sandbox::v1::{
    ShutdownSandboxRequest, ShutdownSandboxResponse,
};
use berth_types::{Kind, Result};

use super::{Sandbox, recovery};
use crate::Tasks;
use crate::bundle::Bundle;
use crate::child::Child;
use crate::create::report;
use crate::exit::Exit;
use crate::runtime::Runtime;
use crate::shim;

impl Tasks {
    /// Ends a sandbox and its shim. A shim of ours stays for as long as containers are in it. It is
    /// done, or not, even if the returned future is dropped.
    ///
    /// # Errors
    /// `NotFound`, and the shim's own; the sandbox is then still there.
    pub async fn shut_down_sandbox(&self, namespace: &str, id: &str) -> Result<()> {
        let sandbox = self.sandbox(namespace, id)?;
        let tasks = self.clone();
        crate::own_task(async move { tasks.shut_down_now(&sandbox).await }).await
    }

    pub(super) async fn shut_down_now(&self, sandbox: &Sandbox) -> Result<()> {
        let _lock = sandbox.ending.lock().await;
        if sandbox.gone.is_cancelled() {
            return Err(self.sandboxes.not_found(sandbox.id()));
        }
        let request = ShutdownSandboxRequest { sandbox_id: sandbox.id().to_owned() };
        let outcome = sandbox.service.call(shim::SHUTDOWN_SANDBOX, &request).await;
        match outcome {
            Ok(ShutdownSandboxResponse {}) => {}
            // The shim has no such sandbox any more: an earlier call had its effect.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) if recovery::dead(error.kind()) => {
                self.bury_sandbox(sandbox).await;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.announce_sandbox_exit(sandbox, Exit { status: 0, at: Some(SystemTime::now().into()) });
        self.forget_sandbox(sandbox);
        Ok(())
    }

    /// Watches a sandbox for the death of its shim, and waits for the shim's process if it is ours.
    pub(super) fn watch_sandbox(&self, sandbox: Arc<Sandbox>, child: Option<Child>) {
        let tasks = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = sandbox.shim.closed() => tasks.mourn_sandbox(&sandbox).await,
                () = sandbox.gone.cancelled() => {}
            }
            if let Some(mut child) = child {
                report(&sandbox.bundle, child.wait().await.map(drop));
            }
        });
    }

    /// Lets subscribers hear of the end of a sandbox that has been started.
    pub(super) fn await_sandbox(&self, sandbox: Arc<Sandbox>) {
        let tasks = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                exit = sandbox.wait() => match exit {
                    Ok(exit) => tasks.announce_sandbox_exit(&sandbox, exit),
                    Err(error) => report(&sandbox.bundle, Err(error)),
                },
                () = sandbox.gone.cancelled() => {}
            }
        });
    }

    /// Cleans up after a shim that closed its connection, unless it was told to.
    async fn mourn_sandbox(&self, sandbox: &Sandbox) {
        let _lock = sandbox.ending.lock().await;
        if !sandbox.gone.is_cancelled() {
            let Bundle { namespace, id, .. } = &sandbox.bundle;
            tracing::warn!(%namespace, %id, "the shim of a sandbox died");
            self.bury_sandbox(sandbox).await;
        }
    }

    /// Cleans up after a dead shim and announces what nobody else can.
    async fn bury_sandbox(&self, sandbox: &Sandbox) {
        let exit = self.clean_up_sandbox(&sandbox.bundle, &sandbox.runtime).await;
        self.announce_sandbox_exit(sandbox, exit);
        self.forget_sandbox(sandbox);
    }

    /// Runs the shim's own cleanup. Ours has nothing to clean up but its containers, each of which
    /// has a bundle of its own.
    pub(super) async fn clean_up_sandbox(&self, bundle: &Bundle, runtime: &Runtime) -> Exit {
        match runtime {
            Runtime::Own => Exit::lost(),
            Runtime::Foreign(_) => self.clean_up(bundle, runtime).await,
        }
    }

    /// Publishes how a sandbox ended, unless that is known.
    pub(super) fn announce_sandbox_exit(&self, sandbox: &Sandbox, exit: Exit) {
        if sandbox.exit.make(exit) {
            self.publish_sandbox_exit(&sandbox.bundle, exit);
        }
    }

    pub(super) fn publish_sandbox_exit(&self, bundle: &Bundle, exit: Exit) {
        let event = SandboxExit {
            sandbox_id: bundle.id.clone(),
            exit_status: exit.status,
            exited_at: exit.at,
        };
        report(bundle, self.events.publish(&bundle.namespace, "/sandboxes/exit", &event));
    }

    /// Removes what is left of an ended sandbox. Its name is free again only when its bundle is
    /// gone.
    fn forget_sandbox(&self, sandbox: &Sandbox) {
        report(&sandbox.bundle, sandbox.bundle.remove());
        self.sandboxes.remove(&sandbox.bundle.namespace, sandbox.id());
        sandbox.gone.cancel();
    }
}
