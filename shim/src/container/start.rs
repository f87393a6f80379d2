//! Starting a created container.

use std::os::fd::OwnedFd;
use std::time::Duration;

use berth_types::{Error, Result};

use super::handshake::{Report, Start};
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
    /// program, whose process then ends. What `startContainer` hooks fail with is told too. That
    /// the process is dead is no failure: its exit says so.
    pub async fn start(&mut self) -> Result<()> {
        let Some(channel) = self.channel.take() else {
            return Err(Error::failed_precondition(format!(
                "container {} was started before",
                self.about().id
            )));
        };
        let agent = self.connect_agent().await?;
        channel.start(&Start { pid: self.init.pid, agent })?;
        let hooks = &self.remains.about.hooks;
        let limit = RUNNING + hooks::longest(&hooks.start_container).unwrap_or(RUNNING);
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
        .await?;
        let state = hooks::state(self.about(), "running", Some(self.init.pid));
        if let Err(error) = hooks::run_beside(&hooks.poststart, &state).await {
            tracing::warn!("a poststart hook failed: {error}");
        }
        Ok(())
    }
}
