//! Finding the sandboxes that an earlier daemon left.

use std::sync::Arc;

use berth_proto::containerd::task::v3::ShutdownRequest;
use berth_types::{Kind, Result};

use super::{Sandbox, recovery};
use crate::bundle::Bundle;
use crate::create::{farewell, report};
use crate::log::LogRelay;
use crate::runtime::Runtime;
use crate::{Tasks, shim};

impl Tasks {
    /// Takes over the sandbox of a bundle on disk.
    pub(crate) async fn take_over_sandbox(&self, bundle: &Bundle) -> Result<()> {
        let place = self.sandboxes.reserve(&bundle.namespace, &bundle.id).await?;
        let runtime = bundle.runtime()?;
        let shim = match recovery::connect(bundle, &runtime).await {
            Err(error) if recovery::dead(error.kind()) => {
                return self.bury_sandbox_bundle(bundle, &runtime).await;
            }
            outcome => outcome?,
        };
        let log = Arc::new(LogRelay::start(bundle)?);
        let sandbox = Arc::new(Sandbox::new(bundle.clone(), runtime, shim, log));
        match sandbox.status(false).await {
            Ok(_) => {}
            Err(error) if recovery::dead(error.kind()) => {
                return self.bury_sandbox_bundle(bundle, &sandbox.runtime).await;
            }
            // The daemon died before the sandbox was made, or when it had just been shut down.
            Err(error) if error.kind() == Kind::NotFound => {
                let request = ShutdownRequest { id: bundle.id.clone(), now: true };
                farewell(bundle, sandbox.shim.call::<_, ()>(shim::SHUTDOWN, &request).await);
                return bundle.remove();
            }
            // It hangs, but it lives.
            Err(error) => report(bundle, Err(error)),
        }
        place.fill(sandbox.clone());
        self.watch_sandbox(sandbox.clone(), None);
        self.await_sandbox(sandbox);
        Ok(())
    }

    /// Cleans up after a shim that died while no daemon was there.
    async fn bury_sandbox_bundle(&self, bundle: &Bundle, runtime: &Runtime) -> Result<()> {
        let Bundle { namespace, id, .. } = bundle;
        tracing::warn!(%namespace, %id, "the shim of a sandbox is gone");
        let exit = self.clean_up_sandbox(bundle, runtime).await;
        recovery::end_unreachable(bundle, runtime);
        self.publish_sandbox_exit(bundle, exit);
        bundle.remove()
    }
}
