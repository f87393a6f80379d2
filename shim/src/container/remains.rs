//! What is left of a container when its first process has ended, and destroying that.

use std::path::Path;
use std::time::Duration;

use berth_sys::cgroup::Cgroup;
use berth_types::spec::Spec;
use berth_types::{Error, Result};

use super::about::About;
use super::{cgroup_path, hooks};

/// How often a killed control group is looked at for what is still dying.
const LOOKS: u32 = 50;

/// The pause between two looks; the last ones are this many times the first.
const PAUSE: Duration = Duration::from_millis(2);

/// A container as far as it is there without its first process.
#[derive(Debug)]
pub struct Remains {
    pub(super) about: About,
    pub(super) cgroup: Cgroup,
}

impl Remains {
    /// What another process has left of container `id`, which was created in `bundle` from `spec`.
    ///
    /// # Errors
    /// InvalidArgument when no container can have had that id or spec.
    pub fn find(id: &str, bundle: &Path, spec: &Spec) -> Result<Self> {
        let about = About::check(id, bundle, spec)?;
        Ok(Self { about, cgroup: Cgroup::open(&cgroup_path(spec, id))? })
    }

    /// Its control group: limits, figures, freezing, killing.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Kills what is left of the container, removes its control group and runs its `poststop`
    /// hooks. Goes on after a failure.
    ///
    /// # Errors
    /// All failures in one, of the first one's kind. That a hook failed is only logged.
    pub async fn destroy(self) -> Result<()> {
        let mut failures = Vec::new();
        if let Err(error) = self.kill_all().await {
            failures.push(error);
        }
        if let Err(error) = self.cgroup.remove() {
            failures.push(error);
        }
        let state = hooks::state(&self.about, "stopped", None);
        for hook in &self.about.hooks.poststop {
            if let Err(error) = hooks::run_beside(std::slice::from_ref(hook), &state).await {
                tracing::warn!("a poststop hook failed: {error}");
            }
        }
        let Some(first) = failures.first() else { return Ok(()) };
        let all: Vec<&str> = failures.iter().map(Error::message).collect();
        Err(Error::new(first.kind(), all.join("; ")))
    }

    /// Kills every process of the container and waits, for some seconds at most, until they are
    /// gone. Those that the shim has started are gone when its reaper has seen them.
    ///
    /// # Errors
    /// FailedPrecondition when processes are left, as in an uninterruptible sleep.
    pub async fn kill_all(&self) -> Result<()> {
        for look in 0..LOOKS {
            if self.cgroup.kill_all()? == 0 {
                return Ok(());
            }
            tokio::time::sleep(PAUSE * (look + 1)).await;
        }
        let pids = self.cgroup.pids()?;
        Err(Error::failed_precondition(format!(
            "processes {pids:?} of container {} can't be killed: see /proc/PID/stack for what \
             they wait for",
            self.about.id
        )))
    }
}
