//! The descriptors that a process gets.

use std::fs::File;
use std::os::fd::OwnedFd;

use berth_types::{Result, ResultExt};
use rustix::pipe::PipeFlags;
use rustix::process::{Gid, Uid};

/// Who owns the pipes of a process, so that it can open them again by name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Makes our end one that never waits. The other end, the container's, is not affected.
pub(super) fn unblock(fd: OwnedFd) -> Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&fd, true)
        .map_err(std::io::Error::from)
        .context(|| "make a stream non-blocking")?;
    Ok(fd)
}

/// `/dev/null`, open for both.
pub(super) fn null() -> Result<OwnedFd> {
    let null = File::options().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from).context(|| "open /dev/null")
}

/// A pipe whose ends belong to `owner`.
pub(super) fn make_pipe(owner: Owner) -> Result<(OwnedFd, OwnedFd)> {
    let make = || -> rustix::io::Result<_> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        if owner.uid != 0 || owner.gid != 0 {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::fchown(&reader, Some(uid), Some(gid))?;
        }
        Ok((reader, writer))
    };
    make().map_err(std::io::Error::from).context(|| "make a pipe")
}
