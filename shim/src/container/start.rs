//! Starting a created container.

use std::os::fd::OwnedFd;
use std::time::Duration;

use berth_types::{Error, Kind, Result, ResultExt};

use super::handshake::{Report, ShimEnd, Start};
use super::newborn::in_time;
use super::{Container, hooks};

/// How long the first process may take to become the program, hooks aside.
const RUNNING: Duration = Duration::from_secs(60);

impl Container {
    /// A connection to the agent that answers for the system call filter, if there is one.
    pub(super) async fn connect_agent(&self) -> Result<Option<OwnedFd>> {
        match &self.filter {
            Some(filter) => filter.connect().await,
            None => Ok(None),
        }
    }

    /// Lets the first process become the program, and runs the `poststart` hooks.
    ///
    /// # Errors
    /// FailedPrecondition when it was started before; InvalidArgument when the kernel refuses the
    /// program; what `startContainer` and `poststart` hooks fail with. Its process then ends. That
    /// it is dead already is no failure: its exit says so.
    pub async fn start(&mut self) -> Result<()> {
        let Some(channel) = self.channel.take() else {
            return Err(Error::failed_precondition(format!(
                "container {} was started before",
                self.about().id
            )));
        };
        let agent = self.connect_agent().await?;
        channel.start(&Start { pid: self.init.pid, agent })?;
        match self.becomes_program(&channel).await {
            // It has not given up, and would start some time later.
            Err(error) if error.kind() == Kind::DeadlineExceeded => return Err(self.stop(error)),
            became => became?,
        }
        let state = hooks::state(self.about(), "running", Some(self.init.pid));
        let hooks = &self.remains.about.hooks.poststart;
        let ran = hooks::run_beside(hooks, &state).await.context(|| "poststart");
        ran.map_err(|error| self.stop(error))
    }

    async fn becomes_program(&self, channel: &ShimEnd) -> Result<()> {
        let hooks = &self.remains.about.hooks.start_container;
        let limit = RUNNING + hooks::longest(hooks).unwrap_or(RUNNING);
        in_time(limit, "starting the program", async {
            loop {
                match channel.next().await? {
                    None => return Ok(()),
                    Some(Report::Failed(error)) => return Err(error),
                    Some(Report::Warning(text)) => tracing::warn!("{text}"),
                    Some(_) => return Err(Error::internal("a started process went a step back")),
                }
            }
        })
        .await
    }

    /// Kills what was not to be started because of `error`, which is returned.
    fn stop(&self, error: Error) -> Error {
        if let Err(also) = self.cgroup().kill_all() {
            tracing::warn!("a container that failed to start may be left: {also}");
        }
        error
    }
}
