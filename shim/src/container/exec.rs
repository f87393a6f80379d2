//! Running another process in a container.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use berth_sys::cgroup::{self, Below};
use berth_sys::clone;
use berth_sys::namespace::{self, Namespaces};
use berth_sys::path::Root;
use berth_types::{Error, Kind, Result, ResultExt, spec};
use rustix::process::Signal;

use super::handshake::{self, ChildEnd, Report, Start};
use super::last_steps::{self, LastSteps};
use super::namespaces::with_pidns_of;
use super::newborn::{self, Newborn};
use super::program::Program;
use super::{Container, Io, Process, console};

/// How long an exec may take to become its program.
const RUNNING: Duration = Duration::from_secs(60);

/// How an exec may differ from the usual one.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// How many further descriptors of the caller's the process keeps, from 3 on.
    pub preserved_fds: u32,
    /// A paused container is no error: the process is born frozen, and the call returns once the
    /// container is resumed.
    pub ignore_paused: bool,
    /// Where below the container's control group the process goes. When nothing is said and the
    /// container has handed its group's controllers to others below it, the process goes where
    /// the container's first is.
    pub below: Below,
}

impl Container {
    /// Runs `process` in the namespaces and the control group of the container, under its system
    /// call filter, and returns once it has become its program.
    ///
    /// # Errors
    /// As [`Container::create`] for what is about the process; FailedPrecondition when the
    /// container's first process is gone, or the container is paused.
    pub async fn exec(&self, process: &spec::Process, io: Io) -> Result<Process> {
        self.exec_with(process, io, ExecOptions::default()).await
    }

    /// As [`Container::exec`], but for `options`.
    ///
    /// # Errors
    /// As [`Container::exec`].
    pub async fn exec_with(
        &self,
        process: &spec::Process,
        io: Io,
        options: ExecOptions,
    ) -> Result<Process> {
        let program = Program::check(process, options.preserved_fds)?;
        if program.terminal != matches!(io, Io::Terminal) {
            return Err(Error::invalid_argument(
                "process.terminal does not agree with the request's terminal",
            ));
        }
        if !options.ignore_paused && self.cgroup().is_frozen()? {
            let message = format!("container {} is paused: resume it first", self.about().id);
            return Err(Error::failed_precondition(message));
        }
        newborn::hide()?;
        let mut newborn = self.spawn(&program, &io, &options.below)?;
        let patience = if options.ignore_paused { Duration::MAX } else { RUNNING };
        match self.raise(&program, &mut newborn, patience).await {
            Ok(()) => newborn.grown().map(|(process, _)| process),
            Err(error) => {
                newborn.kill().await;
                Err(error)
            }
        }
    }

    fn spawn(&self, program: &Program, io: &Io, below: &Below) -> Result<Newborn> {
        let target = self.cgroup().clone_target(below).map_err(gone_if_absent)?;
        let doors = self.cgroup().doors(below).map_err(gone_if_absent)?;
        let (mut shim_end, child_end) = handshake::pair()?;
        let mut clone_into = |target: Option<OwnedFd>| {
            let cgroup = target.as_ref().map(AsFd::as_fd);
            let (channel, shim_end) = (&child_end, &mut shim_end);
            let exec = Exec { container: self, program, io, doors: &doors, channel, shim_end };
            clone::spawn(clone::Options { cgroup, ..clone::Options::default() }, || exec.run())
        };
        let clone = || {
            let child = match clone_into(target) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy && below.is_unsaid() => {
                    let init = self.cgroup().clone_target_beside(self.init.pid);
                    clone_into(init.map_err(gone_if_absent)?)
                }
                child => child,
            };
            child.context(|| "clone a process")
        };
        let child = match self.namespaces.contains(Namespaces::PID) {
            true => with_pidns_of(&self.init.pidfd, clone).map_err(gone)?,
            false => clone()?,
        };
        Newborn::new(child, shim_end)
    }

    async fn raise(
        &self,
        program: &Program,
        newborn: &mut Newborn,
        patience: Duration,
    ) -> Result<()> {
        newborn.set_oom_score(program.oom_score_adj)?;
        let agent = self.connect_agent().await?;
        newborn.channel.start(&Start { pid: newborn.pid(), agent })?;
        match newborn::in_time(patience, "starting the program", newborn.next()).await? {
            None => Ok(()),
            Some(_) => Err(Error::internal("a process that joins a container took a wrong step")),
        }
    }
}

/// What can't be joined any more is the container of a first process that is gone.
fn gone(error: Error) -> Error {
    Error::failed_precondition(format!("the container is not running: {error}"))
}

/// A control group that isn't there is one that somebody removes just now.
fn gone_if_absent(error: Error) -> Error {
    if error.kind() == Kind::NotFound { gone(error) } else { error }
}

/// The process while it turns into the program. As for [`Init`](super::init::Init), it is a child
/// with a copy of the shim's memory.
struct Exec<'a> {
    container: &'a Container,
    program: &'a Program,
    io: &'a Io,
    /// Of the control group; none when it was born there.
    doors: &'a [OwnedFd],
    channel: &'a ChildEnd,
    shim_end: &'a mut OwnedFd,
}

impl Exec<'_> {
    fn run(mut self) -> i32 {
        match self.steps() {
            Ok(never) => match never {},
            Err(error) => {
                // When the shim is gone, nobody is left to tell.
                let _ = self.channel.report(&Report::Failed(error));
                1
            }
        }
    }

    fn steps(&mut self) -> Result<Infallible> {
        handshake::forget(self.shim_end, self.channel)?;
        self.program.scheduling.enter_initial()?;
        cgroup::enter(self.doors)
            .context(|| "enter the container's control group")
            .map_err(gone)?;
        self.program.scheduling.enter_last()?;
        last_steps::clear_umask();
        rustix::process::setsid().map_err(std::io::Error::from).context(|| "start a session")?;
        let kinds = self.container.namespaces.without(Namespaces::PID);
        namespace::join(self.container.init.pidfd.as_fd(), kinds)
            .context(|| "join the container's namespaces")
            .map_err(gone)?;
        last_steps::follow_parent(Some(Signal::KILL))?;
        let root = Root::open(Path::new("/")).context(|| "open the container's root")?;
        self.take_streams(&root)?;
        let last_steps = LastSteps {
            program: self.program,
            filter: self.container.filter.as_ref(),
            root: &root,
            channel: self.channel,
        };
        let image = last_steps.prepare()?;
        last_steps::follow_parent(None)?;
        let start = self.channel.wait_for_start()?;
        last_steps.finish(&image, &start, (self.container.about(), "running"))
    }

    fn take_streams(&self, root: &Root) -> Result<()> {
        match self.io {
            Io::Pipes(stdio) => console::take_streams(stdio),
            Io::Terminal => {
                let size = self.program.console_size.as_ref();
                console::take_terminal(&console::open(root, size, self.channel)?)
            }
        }
    }
}
