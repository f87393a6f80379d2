//! A process as the task service sees it: the container's init, or an exec.
//!
//! ```text
//! Added ──(Create, or Start of an exec)──> Created ──(Start)──> Running ──(exit)──> Stopped
//!   exec only: Start leads from Added to Running       Created ──(exit)──> Stopped
//! ```
//!
//! While a step is under way its process is *busy*: an exit that comes meanwhile is held until the
//! step has been announced, so that nobody hears of an end before the beginning.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_proto::containerd::v1::types::Status;
use berth_types::{Error, Result, ResultExt, spec};
use tokio::sync::watch;

use super::exit::Exit;
use super::stdio::{Names, Streams};

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is known and there is no process yet.
    Added,
    /// It waits to become the program.
    Created,
    /// It runs.
    Running,
    /// It has ended, and that has been announced.
    Stopped(Exit),
}

/// A container's init or one of its execs.
pub(crate) struct Process {
    /// Empty for the init.
    pub(crate) exec_id: String,
    /// What its streams were called in the request.
    pub(crate) names: Names,
    /// What an exec is to run.
    pub(crate) spec: Option<spec::Process>,
    /// Its streams.
    pub(crate) streams: Streams,
    state: Mutex<State>,
    exit: watch::Sender<Option<Exit>>,
}

struct State {
    phase: Phase,
    pid: i32,
    pidfd: Option<OwnedFd>,
    busy: bool,
    held: Option<Exit>,
}

/// A step that is under way.
pub(crate) struct Step<'a>(&'a Process);

impl Process {
    /// A process that is only known. An empty `exec_id` is the init's.
    ///
    /// # Errors
    /// As [`Streams::new`].
    pub(crate) fn new(exec_id: &str, names: Names, spec: Option<spec::Process>) -> Result<Self> {
        Ok(Self {
            exec_id: exec_id.to_owned(),
            streams: Streams::new(&names)?,
            names,
            spec,
            state: Mutex::new(State {
                phase: Phase::Added,
                pid: 0,
                pidfd: None,
                busy: false,
                held: None,
            }),
            exit: watch::Sender::new(None),
        })
    }

    /// Whether it is the container's init.
    pub(crate) fn is_init(&self) -> bool {
        self.exec_id.is_empty()
    }

    /// Begins the step that leads on from `phase`.
    ///
    /// # Errors
    /// FailedPrecondition in any other phase, and while a step is under way.
    pub(crate) fn begin(&self, phase: Phase) -> Result<Step<'_>> {
        let mut state = self.lock();
        if state.busy || state.phase != phase {
            let (is, what) = (state.describe(), self.describe());
            return Err(Error::failed_precondition(format!("{what} can't be started: it {is}")));
        }
        state.busy = true;
        Ok(Step(self))
    }

    /// Takes note of an exit. False while a step is under way, which then announces it.
    pub(crate) fn ended(&self, exit: Exit) -> bool {
        let mut state = self.lock();
        if state.busy {
            state.held = Some(exit);
        }
        !state.busy
    }

    /// The exit is recorded: the process is stopped, and all who wait learn it.
    pub(crate) fn stop(&self, exit: Exit) {
        self.lock().phase = Phase::Stopped(exit);
        self.exit.send_replace(Some(exit));
    }

    /// Returns once the process is stopped.
    pub(crate) async fn stopped(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        loop {
            if let Some(exit) = *exit.borrow_and_update() {
                return exit;
            }
            // The sender lives as long as `self`.
            let _ = exit.changed().await;
        }
    }

    /// Sends signal number `signal`.
    ///
    /// # Errors
    /// NotFound when it has ended, FailedPrecondition when it isn't there yet, InvalidArgument for
    /// a number that is no signal.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        let state = self.lock();
        let finished =
            || Error::not_found(format!("{}: process already finished", self.describe()));
        match (&state.phase, &state.pidfd) {
            (Phase::Stopped(_), _) => Err(finished()),
            (_, None) => {
                Err(Error::failed_precondition(format!("{} is not started", self.describe())))
            }
            (_, Some(pidfd)) => match berth_sys::pidfd::send_signal(pidfd.as_fd(), signal) {
                Err(error) if error.raw_os_error() == Some(3) => Err(finished()),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    Err(Error::invalid_argument(format!("{signal} is no signal")))
                }
                other => other.context(|| format!("send signal {signal} to {}", self.describe())),
            },
        }
    }

    /// Where it stands.
    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Its process id in the shim's pidns; 0 before there is one.
    pub(crate) fn pid(&self) -> i32 {
        self.lock().pid
    }

    /// Its state as messages have it.
    pub(crate) fn status(&self) -> Status {
        match self.phase() {
            Phase::Added | Phase::Created => Status::Created,
            Phase::Running => Status::Running,
            Phase::Stopped(_) => Status::Stopped,
        }
    }

    /// How messages call it.
    pub(crate) fn describe(&self) -> String {
        match &*self.exec_id {
            "" => "the container's init".to_owned(),
            id => format!("exec {id:?}"),
        }
    }

    /// Every change is one step, so that a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn describe(&self) -> &'static str {
        match self.phase {
            _ if self.busy => "is being started",
            Phase::Added => "is not created",
            Phase::Created => "waits to be started",
            Phase::Running => "runs",
            Phase::Stopped(_) => "has ended",
        }
    }
}

impl Step<'_> {
    /// There is a process now.
    ///
    /// # Errors
    /// When its pidfd can't be duplicated.
    pub(crate) fn born(&self, pid: i32, pidfd: &OwnedFd) -> Result<()> {
        let pidfd = pidfd.try_clone().context(|| "duplicate a pidfd")?;
        let mut state = self.0.lock();
        (state.pid, state.pidfd) = (pid, Some(pidfd));
        Ok(())
    }

    /// An exit that was found when the process was claimed.
    pub(crate) fn hold(&self, exit: Exit) {
        self.0.lock().held = Some(exit);
    }

    /// The step has been announced: the process is in `phase`. Returns the exit that was held
    /// back, which is to be announced now.
    pub(crate) fn done(self, phase: Phase) -> Option<Exit> {
        self.0.lock().phase = phase;
        self.held()
    }

    /// The step failed and the process is where it was. Returns the exit that was held back.
    pub(crate) fn held(self) -> Option<Exit> {
        let mut state = self.0.lock();
        state.busy = false;
        state.held.take()
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.0.lock().busy = false;
    }
}
