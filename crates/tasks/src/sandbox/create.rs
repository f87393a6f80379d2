//! Making a sandbox, and starting it.

use std::collections::HashMap;
use std::sync::Arc;

use berth_proto::containerd::events::{SandboxCreate, SandboxStart};
use berth_proto::containerd::runtime::sandbox::v1::{
    CreateSandboxRequest, CreateSandboxResponse, StartSandboxRequest, StartSandboxResponse,
};
use berth_proto::containerd::types::Mount;
use berth_types::{Result, id};
use prost_types::Any;

use super::Sandbox;
use crate::Tasks;
use crate::bundle::{Bundle, Owner};
use crate::child::Child;
use crate::create::{Started, report};
use crate::runtime::Runtime;
use crate::shim;

/// What a sandbox is made of.
#[derive(Clone, Debug, Default)]
pub struct CreateSandbox {
    /// The tenant.
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// Name of the runtime, or an absolute path of a shim.
    pub runtime: String,
    /// The runtime's options, for the `start` of shims that are not ours.
    pub runtime_options: Option<Any>,
    /// What the shim reads as `config.json`; empty for none.
    pub spec: Vec<u8>,
    /// The mounts that make its root file system.
    pub rootfs: Vec<Mount>,
    /// What its maker wants to tell the shim.
    pub options: Option<Any>,
    /// Its netns, which is there already.
    pub netns: String,
    /// Words about it.
    pub annotations: HashMap<String, String>,
}

impl Tasks {
    /// Makes a sandbox: starts its shim, which prepares it. It is made, or undone, even if the
    /// returned future is dropped.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` for an unknown runtime, `Unimplemented` when the shim doesn't
    /// know sandboxes, and the shim's own failures.
    pub async fn create_sandbox(&self, create: CreateSandbox) -> Result<Arc<Sandbox>> {
        let tasks = self.clone();
        crate::own_task(async move { tasks.create_sandbox_now(create).await }).await
    }

    async fn create_sandbox_now(&self, create: CreateSandbox) -> Result<Arc<Sandbox>> {
        id::validate("namespace", &create.namespace)?;
        id::validate("sandbox id", &create.id)?;
        let place = self.sandboxes.reserve(&create.namespace, &create.id).await?;
        let runtime = Runtime::resolve(&self.config, &create.runtime)?;
        let bundle = Bundle::of(&self.config, Owner::Sandbox, &create.namespace, &create.id);
        bundle.create(&create.spec)?;
        let (sandbox, child) = match self.launch_sandbox(&bundle, &runtime, create).await {
            Ok(launched) => launched,
            Err(error) => {
                report(&bundle, bundle.remove());
                return Err(error);
            }
        };
        let sandbox = Arc::new(sandbox);
        place.fill(sandbox.clone());
        let event = SandboxCreate { sandbox_id: bundle.id.clone() };
        report(&bundle, self.events.publish(&bundle.namespace, "/sandboxes/create", &event));
        self.watch_sandbox(sandbox.clone(), child);
        Ok(sandbox)
    }

    async fn launch_sandbox(
        &self,
        bundle: &Bundle,
        runtime: &Runtime,
        create: CreateSandbox,
    ) -> Result<(Sandbox, Option<Child>)> {
        let started = match runtime {
            Runtime::Own => self.start_own(bundle).await?,
            Runtime::Foreign(binary) => {
                self.start_foreign(bundle, binary, create.runtime_options.as_ref()).await?
            }
        };
        let request = CreateSandboxRequest {
            sandbox_id: create.id,
            bundle_path: bundle.path.to_string_lossy().into_owned(),
            rootfs: create.rootfs,
            options: create.options,
            netns_path: create.netns,
            annotations: create.annotations,
        };
        let service = started.shim.for_sandbox();
        let created: Result<CreateSandboxResponse> =
            service.call(shim::CREATE_SANDBOX, &request).await;
        if let Err(error) = created {
            self.abandon(bundle, runtime, started, error.kind()).await;
            return Err(error.context(format!("create sandbox {}", bundle.id)));
        }
        let Started { shim, log, child } = started;
        Ok((Sandbox::new(bundle.clone(), runtime.clone(), shim, log), child))
    }

    /// Starts a sandbox. One that can't be started is shut down.
    ///
    /// # Errors
    /// `NotFound`, and the shim's own.
    pub async fn start_sandbox(&self, namespace: &str, id: &str) -> Result<StartSandboxResponse> {
        let sandbox = self.sandbox(namespace, id)?;
        let tasks = self.clone();
        crate::own_task(async move { tasks.start_sandbox_now(sandbox).await }).await
    }

    async fn start_sandbox_now(&self, sandbox: Arc<Sandbox>) -> Result<StartSandboxResponse> {
        let request = StartSandboxRequest { sandbox_id: sandbox.id().to_owned() };
        match sandbox.service.call::<_, StartSandboxResponse>(shim::START_SANDBOX, &request).await {
            Ok(started) => {
                let bundle = &sandbox.bundle;
                let event = SandboxStart { sandbox_id: bundle.id.clone() };
                report(bundle, self.events.publish(&bundle.namespace, "/sandboxes/start", &event));
                self.await_sandbox(sandbox);
                Ok(started)
            }
            Err(error) => {
                report(&sandbox.bundle, self.shut_down_now(&sandbox).await);
                Err(error.context(format!("start sandbox {}", sandbox.id())))
            }
        }
    }
}
