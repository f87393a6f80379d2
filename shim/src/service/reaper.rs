//! The shim's only waiting for children.
//!
//! A process may end before anybody knows its id: its exit is then kept for as long as something
//! is being started, until the process is claimed. Children that nobody claims are orphans of the
//! container's, which the kernel gives to the shim as their subreaper.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_types::{Result, ResultExt};
use rustix::process::WaitOptions;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;
use super::process::Process;
use super::task::Task;

/// The children of this process.
pub(crate) struct Reaper {
    children: Mutex<Children>,
}

/// Whose child it is.
type Claim = (Arc<Task>, Arc<Process>);

#[derive(Default)]
struct Children {
    claimed: HashMap<i32, Claim>,
    /// How many processes are being started.
    expected: usize,
    unclaimed: HashMap<i32, Exit>,
}

/// While it lives, no exit is forgotten.
pub(crate) struct Expecting<'a>(&'a Reaper);

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        let mut children = self.0.lock();
        children.expected -= 1;
        if children.expected == 0 {
            children.unclaimed = HashMap::new();
        }
    }
}

impl Reaper {
    pub(crate) fn new() -> Self {
        Self { children: Mutex::default() }
    }

    /// To be held from before a process is started until it is claimed.
    pub(crate) fn expect(&self) -> Expecting<'_> {
        self.lock().expected += 1;
        Expecting(self)
    }

    /// From now on the exit of child `pid` is that of `process`, which is one of `task`'s. If it
    /// has ended already, its exit is returned.
    pub(crate) fn claim(
        &self,
        pid: i32,
        pidfd: impl AsFd,
        task: &Arc<Task>,
        process: &Arc<Process>,
    ) -> Option<Exit> {
        let mut children = self.lock();
        let early = children.unclaimed.remove(&pid);
        // The number may have been an orphan's before: then the process is still there.
        if early.is_some() && berth_sys::pidfd::send_signal(pidfd.as_fd(), 0).is_err() {
            return early;
        }
        children.claimed.insert(pid, (task.clone(), process.clone()));
        None
    }

    /// Reports the exits of claimed children to their tasks, in the order in which they were reaped.
    ///
    /// # Errors
    /// When the kernel refuses to wait, which it never does.
    pub(crate) async fn run(&self, mut children: Signal) -> Result<()> {
        loop {
            while let Some((claim, exit)) = self.reap()? {
                if let Some((task, process)) = claim {
                    task.process_ended(process, exit);
                }
            }
            children.recv().await;
        }
    }

    /// Takes the status of one child, if one has ended.
    fn reap(&self) -> Result<Option<(Option<Claim>, Exit)>> {
        let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(errno) => return Err(std::io::Error::from(errno)).context(|| "wait for children"),
        };
        let (pid, exit) = (pid.as_raw_nonzero().get(), Exit::now(status));
        let mut children = self.lock();
        let claim = children.claimed.remove(&pid);
        if claim.is_none() && children.expected > 0 {
            children.unclaimed.insert(pid, exit);
        }
        Ok(Some((claim, exit)))
    }

    /// Every change is one step, so that a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes this process the one that gets the container's orphans, and listens for ends of children.
///
/// # Errors
/// Those of `prctl(2)` and `sigaction(2)`.
pub(crate) fn prepare() -> Result<Signal> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(std::io::Error::from)
        .context(|| "become a subreaper")?;
    signal(SignalKind::child()).context(|| "listen for ends of children")
}
