//! The standard streams of a process: those it is given, or a terminal of the container's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::path::Root;
use berth_sys::{mount, pty};
use berth_types::spec::ConsoleSize;
use berth_types::{Error, Result, ResultExt};
use rustix::termios::Winsize;

use super::Stdio;
use super::handshake::{ChildEnd, Report};

/// A terminal for the caller: what the shim is to get of it is sent by `channel`.
pub(super) fn open(root: &Root, size: Option<&ConsoleSize>, channel: &ChildEnd) -> Result<OwnedFd> {
    let pty::Pair { master, slave } = pty::open(root).map_err(|error| {
        Error::invalid_argument(format!("open a terminal of the container's /dev/pts: {error}"))
    })?;
    if let Some(ConsoleSize { height, width }) = size {
        let size = Winsize { ws_row: *height, ws_col: *width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size)
            .map_err(io::Error::from)
            .context(|| "set the size of the terminal")?;
    }
    channel.report(&Report::Terminal(master))?;
    Ok(slave)
}

/// Makes `slave` the container's `/dev/console`.
pub(super) fn bind(root: &Root, slave: &OwnedFd) -> Result<()> {
    let bind = || {
        let console = root.make_file(Path::new("/dev/console"))?;
        let copy = mount::copy(slave.as_fd(), "", false)?;
        mount::attach(copy.as_fd(), console.as_fd())
    };
    bind().context(|| "mount /dev/console")
}

/// Makes `slave` the caller's controlling terminal and its standard streams.
pub(super) fn take_terminal(slave: &OwnedFd) -> Result<()> {
    let take = || {
        rustix::process::ioctl_tiocsctty(slave)?;
        replace(slave, slave, slave)
    };
    take().context(|| "take the terminal")
}

/// Makes `stdio` the caller's standard streams.
pub(super) fn take_streams(stdio: &Stdio) -> Result<()> {
    replace(&stdio.stdin, &stdio.stdout, &stdio.stderr).context(|| "take the standard streams")
}

fn replace(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> io::Result<()> {
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    Ok(rustix::stdio::dup2_stderr(stderr)?)
}
