//! Pseudo-terminals (`pty(7)`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;

use crate::path::Root;

/// The major device number of the slaves, `UNIX98_PTY_SLAVE_MAJOR`.
const SLAVE_MAJOR: u32 = 136;

/// The two ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Pair {
    /// The terminal emulator's end.
    pub master: OwnedFd,
    /// The programs' end.
    pub slave: OwnedFd,
}

/// Opens a new pseudo-terminal of the devpts that is mounted at `/dev/pts` in `root`.
///
/// # Errors
/// Those of `openat2(2)` and `ioctl_tty(2)`; `ENOTTY` when something else is at that path.
pub fn open(root: &Root) -> io::Result<Pair> {
    let master = root.open_at(Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY)?;
    rustix::pty::unlockpt(&master)?;
    // The slave comes from the master itself and not from a path that may be covered.
    let slave = rustix::pty::ioctl_tiocgptpeer(
        master.as_fd(),
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    let stat = rustix::fs::fstat(&slave)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice
        || rustix::fs::major(stat.st_rdev) != SLAVE_MAJOR
    {
        return Err(Errno::NOTTY.into());
    }
    Ok(Pair { master, slave })
}
