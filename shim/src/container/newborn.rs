//! A process that is on its way to be one of a container's.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use berth_sys::clone::Child;
use berth_sys::pidfd;
use berth_sys::procfs::Procfs;
use berth_types::{Error, Result, ResultExt};
use rustix::process::{DumpableBehavior, Signal};

use super::Process;
use super::handshake::{Report, ShimEnd};

/// How often, and with which pause, a killed process is looked at until it is gone: for some
/// seconds.
const DEATH_LOOKS: u32 = 5000;
const DEATH_PAUSE: Duration = Duration::from_millis(1);

/// How long a guide may take.
const READY: Duration = Duration::from_secs(60);

/// A child of the shim that is killed unless it becomes a [`Process`].
#[derive(Debug)]
pub(super) struct Newborn {
    life: Life,
    terminal: Option<OwnedFd>,
    pub(super) channel: ShimEnd,
}

/// Ends with the value, unless the child is taken out.
#[derive(Debug)]
struct Life(Option<Child>);

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            // It fails only for a process that is gone.
            let _ = pidfd::send_signal(child.pidfd.as_fd(), Signal::KILL.as_raw());
        }
    }
}

impl Newborn {
    /// Takes `child` into care; `channel` is the shim's end of its socket.
    pub(super) fn new(child: Child, channel: OwnedFd) -> Result<Self> {
        let life = Life(Some(child));
        Ok(Self { life, terminal: None, channel: ShimEnd::new(channel)? })
    }

    /// The child that this one, a guide, has brought, once the guide is gone.
    pub(super) async fn brought(mut self) -> Result<Self> {
        let what = "entering the user namespace";
        match in_time(READY, what, self.next()).await {
            Ok(Some(Report::Born(child))) => {
                let Self { life: mut guide, channel, .. } = self;
                if let Some(guide) = guide.0.take() {
                    // It has nothing left to do but end. The shim's reaper may be faster.
                    pidfd::wait(guide.pidfd.as_fd()).context(|| "wait for a guide")?;
                }
                Ok(Self { life: Life(Some(child)), terminal: None, channel })
            }
            Ok(_) => {
                self.kill().await;
                Err(Error::aborted("the process that enters the user namespace was killed"))
            }
            Err(error) => {
                self.kill().await;
                Err(error)
            }
        }
    }

    /// The process id.
    pub(super) fn pid(&self) -> i32 {
        self.life.0.as_ref().map_or(0, |child| child.pid)
    }

    /// The next report that is not about a warning, a terminal or a failure; `None` when the
    /// child closed its end.
    pub(super) async fn next(&mut self) -> Result<Option<Report>> {
        loop {
            match self.channel.next().await? {
                Some(Report::Warning(text)) => tracing::warn!(pid = self.pid(), "{text}"),
                Some(Report::Terminal(master)) => self.terminal = Some(master),
                Some(Report::Failed(error)) => return Err(error),
                other => return Ok(other),
            }
        }
    }

    /// Sets how readily it is killed when memory is short. Without `CAP_SYS_RESOURCE` the score
    /// can't be lowered: it stays what it is then.
    pub(super) fn set_oom_score(&self, score: Option<i32>) -> Result<()> {
        let Some(score) = score else { return Ok(()) };
        let procfs = Procfs::host().context(|| "open /proc")?;
        let path = format!("{}/oom_score_adj", self.pid());
        match procfs.write(Path::new(&path), score.to_string().as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(
                    "process.oomScoreAdj {score} is not set: it may not be lowered here"
                );
                Ok(())
            }
            other => other.context(|| format!("set process.oomScoreAdj to {score}")),
        }
    }

    /// It is a container's process now, and no longer killed with this value.
    pub(super) fn grown(mut self) -> Result<(Process, ShimEnd)> {
        let child = self.life.0.take().ok_or_else(|| Error::internal("the process is gone"))?;
        let Child { pid, pidfd } = child;
        Ok((Process { pid, pidfd, terminal: self.terminal }, self.channel))
    }

    /// Kills it and waits until it is gone, so that nothing it used is busy.
    pub(super) async fn kill(mut self) {
        let Some(child) = self.life.0.take() else { return };
        let _ = pidfd::send_signal(child.pidfd.as_fd(), Signal::KILL.as_raw());
        for _ in 0..DEATH_LOOKS {
            let ended = pidfd::has_ended(child.pidfd.as_fd());
            if ended.unwrap_or(true) {
                break;
            }
            tokio::time::sleep(DEATH_PAUSE).await;
        }
        // The shim's reaper may have been faster. A process that is still there hangs in the
        // kernel, and the reaper will see to it.
        let _ = pidfd::try_wait(child.pidfd.as_fd());
    }
}

/// What is awaited of a child must come within `limit`.
pub(super) async fn in_time<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::deadline_exceeded(format!(
            "{what} took longer than {} s: look for a hanging mount",
            limit.as_secs()
        ))),
    }
}

/// Keeps the shim's children, until they are programs, from being looked into by what runs in
/// their new namespaces. A child inherits it.
pub(super) fn hide() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(io::Error::from)
        .context(|| "make the shim not dumpable")
}
