//! Directories that a layer's archive left out.
//!
//! A layer that changes `/etc/passwd` need not have `/etc`. When it is applied alone, `/etc` is
//! made as in an empty tree, root's with mode 0755; in the overlay this would be the `/etc` that
//! shows. So it is given what the uppermost lower layer's has.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::path::Root;
use berth_types::{Result, ResultExt};
use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::tree::{fault, is_opaque};
use crate::xattr;

/// Gives each directory of `implicit` in `upper` the owner, mode, times and attributes that it
/// shows in `lowers`, the uppermost first. What no lower layer shows is left as it is.
///
/// `implicit` is [`Applied::implicit`](crate::Applied::implicit). The lower layers must be whole
/// themselves, so layers are fixed in the order of the chain.
///
/// # Errors
/// Those of the filesystem.
pub fn fix_implicit_parents(
    upper: BorrowedFd<'_>,
    lowers: &[BorrowedFd<'_>],
    implicit: &[PathBuf],
) -> Result<()> {
    let open = |layer: &BorrowedFd<'_>| layer.try_clone_to_owned().map(Root::from);
    let upper = open(&upper).context(|| "duplicate a descriptor")?;
    let lowers: io::Result<Vec<_>> = lowers.iter().map(open).collect();
    let lowers = lowers.context(|| "duplicate a descriptor")?;
    for path in implicit {
        let bytes = path.as_os_str().as_bytes();
        if let Look::Directory { fd, opaque: false } = look(&upper, bytes)?
            && let Some(lower) = uppermost(&lowers, bytes)?
        {
            copy_metadata(lower.as_fd(), fd.as_fd())
                .map_err(|errno| fault("fix the directory of", bytes, &errno.into()))?;
        }
    }
    Ok(())
}

/// What one layer has at a path.
enum Look {
    /// Nothing, and it hides nothing.
    Absent,
    /// Something that hides the path in the layers below.
    Hidden,
    /// A directory, which is `opaque` if it or one above it hides those of the layers below.
    Directory { fd: OwnedFd, opaque: bool },
}

/// The directory that shows at `path` in an overlay of `layers`.
fn uppermost(layers: &[Root], path: &[u8]) -> Result<Option<OwnedFd>> {
    for layer in layers {
        match look(layer, path)? {
            Look::Absent => {}
            Look::Hidden => return Ok(None),
            Look::Directory { fd, .. } => return Ok(Some(fd)),
        }
    }
    Ok(None)
}

fn look(layer: &Root, path: &[u8]) -> Result<Look> {
    let mut opaque = false;
    let mut found = Look::Absent;
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    for end in slashes.map(|(at, _)| at).chain([path.len()]) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let here = if end == 0 { b"." } else { &path[..end] };
        match layer.open_at(Path::new(OsStr::from_bytes(here)), flags) {
            Ok(fd) => {
                opaque |= is_opaque(fd.as_fd());
                found = Look::Directory { fd, opaque };
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) if !opaque => return Ok(Look::Absent),
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Look::Hidden),
                _ => return Err(fault("look up", path, &error)),
            },
        }
    }
    Ok(found)
}

fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(from)?;
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::fchown(to, owner.0, owner.1)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    for name in xattr::list(from)? {
        let value = xattr::get(from, &name)?;
        rustix::fs::fsetxattr(to, name.as_slice(), &value, XattrFlags::empty())?;
    }
    let last_access = Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ };
    let last_modification = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    rustix::fs::futimens(to, &Timestamps { last_access, last_modification })
}
