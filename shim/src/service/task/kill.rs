//! Kill: sends a signal to a process, or to all of the container.

use berth_proto::containerd::task::v3::KillRequest;
use berth_sys::cgroup::Cgroup;
use berth_types::{Error, Result};
use rustix::process::Signal;

use super::Task;
use crate::container;
use crate::service::process::{Phase, Process};

impl Task {
    /// # Errors
    /// NotFound without such a process and when it has ended, FailedPrecondition when it isn't
    /// started, InvalidArgument for a number that is no signal.
    pub(super) async fn kill(&self, request: KillRequest) -> Result<()> {
        let process = self.process(&request.exec_id)?;
        let signal = i32::try_from(request.signal)
            .ok()
            .filter(|signal| (0..=64).contains(signal))
            .ok_or_else(|| Error::invalid_argument(format!("{} is no signal", request.signal)))?;
        if request.all {
            return self.with_cgroup(|cgroup| container::signal_all(cgroup, signal)).await;
        }
        process.signal(signal)?;
        if signal == Signal::KILL.as_raw() && process.is_init() {
            self.let_die(&process).await?;
        }
        Ok(())
    }

    /// Kills the init, a frozen one too.
    pub(crate) async fn kill_init(&self) {
        let kill = async {
            let init = self.process("")?;
            init.signal(Signal::KILL.as_raw())?;
            self.let_die(&init).await
        };
        if let Err(error) = kill.await {
            tracing::debug!("container {:?} is not killed: {error}", self.id);
        }
    }

    /// A frozen process is killed only once it thaws.
    async fn let_die(&self, process: &Process) -> Result<()> {
        if process.phase() != Phase::Running {
            return Ok(());
        }
        let thaw = |cgroup: &Cgroup| if cgroup.is_frozen()? { cgroup.thaw() } else { Ok(()) };
        self.with_cgroup(thaw).await
    }
}
