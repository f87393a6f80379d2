//! The terminal of a container's process: handed to a client's socket, or joined to the caller's
//! own.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use berth_sys::clone::{self, Child};
use berth_sys::{pidfd, socket};
use berth_types::{Error, Result, ResultExt};
use rustix::process::Signal;
use rustix::termios::{self, OptionalActions, Termios};

use crate::life;

/// Checks that the terminal of the process, if it is to have one, has somebody to hold it.
///
/// # Errors
/// InvalidArgument when it hasn't, or when a socket waits for a terminal that there won't be.
pub(crate) fn check(wanted: bool, socket: Option<&Path>, detached: bool) -> Result<()> {
    match (wanted, socket) {
        (false, Some(_)) => Err(Error::invalid_argument(
            "--console-socket: the process is to have no terminal (process.terminal)",
        )),
        (true, None) if detached => Err(Error::invalid_argument(
            "process.terminal: nobody would hold the terminal: give a --console-socket",
        )),
        _ => Ok(()),
    }
}

/// Sends the master of a terminal to `socket`, if there are both; else the caller keeps it.
///
/// # Errors
/// When the socket can't be reached.
pub(crate) fn hand_over(master: Option<OwnedFd>, socket: Option<&Path>) -> Result<Option<OwnedFd>> {
    let (Some(fd), Some(path)) = (&master, socket) else { return Ok(master) };
    let what = || format!("send the terminal to {}", path.display());
    let connection = UnixStream::connect(path).context(what)?;
    socket::send(connection.as_fd(), b"/dev/ptmx", &[fd.as_fd()]).context(what)?;
    Ok(None)
}

/// The caller's terminal in raw mode, which it leaves when this is dropped.
pub(crate) struct RawMode(Option<Termios>);

impl RawMode {
    /// Has each key go to the container, if standard input is a terminal.
    pub(crate) fn enter() -> Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        let enter = || -> rustix::io::Result<Termios> {
            let before = termios::tcgetattr(rustix::stdio::stdin())?;
            let mut raw = before.clone();
            raw.make_raw();
            termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?;
            Ok(before)
        };
        enter().map(Some).map(Self).map_err(io::Error::from).context(|| "set the terminal raw")
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing can be done about a terminal that is gone.
            let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// Gives `master` the size of the caller's terminal, if there is one.
pub(crate) fn follow_size(master: &OwnedFd) {
    if let Ok(size) = termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _ = termios::tcsetwinsize(master, size);
    }
}

/// Copies between the caller's standard streams and a terminal, in two children, which may wait
/// as long as they like.
pub(crate) struct Relay {
    screen: Child,
    keyboard: Child,
}

impl Relay {
    /// Starts copying for `master`.
    ///
    /// # Errors
    /// When a child can't be started.
    pub(crate) fn start(master: &OwnedFd) -> Result<Self> {
        let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        Ok(Self {
            screen: copier(master.as_fd(), stdout)?,
            keyboard: copier(stdin, master.as_fd())?,
        })
    }

    /// Waits until all is shown that the terminal's programs have printed: until the last of them
    /// has closed it, or for `limit`.
    pub(crate) async fn finish(self, limit: Duration) {
        // Too late is no failure: others may keep the terminal open for as long as they like.
        let _ = tokio::time::timeout(limit, life::ended(&self.screen.pidfd)).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for child in [&self.screen, &self.keyboard] {
            // They fail only for a child that has ended.
            let _ = pidfd::send_signal(child.pidfd.as_fd(), Signal::KILL.as_raw());
            let _ = pidfd::wait(child.pidfd.as_fd());
        }
    }
}

fn copier(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<Child> {
    let options = clone::Options { unseen: true, ..clone::Options::default() };
    let copy = || {
        // Not longer than who waits for it.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        copy_all(from, to).is_err().into()
    };
    clone::spawn(options, copy).context(|| "start a process that copies")
}

/// A terminal that no program has open any more fails with `EIO`, which ends it too.
fn copy_all(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut buffer = [0; 8192];
    loop {
        let length = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer))?;
        if length == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(to, rest))?;
            rest = &rest[written..];
        }
    }
}
