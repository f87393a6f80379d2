//! What a layer's archive alone doesn't tell, because it depends on the layers below.
//!
//! - A layer that changes `/etc/passwd` need not have `/etc`. When it is applied alone, `/etc` is
//!   made as in an empty tree, root's with mode 0755; in the overlay this would be the `/etc` that
//!   shows. So it is given what the uppermost lower layer's has.
//! - Where no lower layer's directory shows through, overlayfs lists the upper one as it is, and so
//!   a whiteout in it as a name of nothing. It hides nothing there and is removed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::path::Root;
use berth_types::{Result, ResultExt};
use rustix::fs::{AtFlags, Dir, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::Applied;
use crate::tree::{fault, is_opaque, is_whiteout};
use crate::xattr;

/// The layers that one is put on top of, the uppermost first.
#[derive(Default)]
pub struct Lowers(Vec<Root>);

impl Lowers {
    /// Layers whose roots are these directories.
    pub fn new(roots: impl IntoIterator<Item = OwnedFd>) -> Self {
        Self(roots.into_iter().map(Root::from).collect())
    }

    /// Puts another layer on top.
    pub fn push(&mut self, root: OwnedFd) {
        self.0.insert(0, Root::from(root));
    }

    /// The directory that an overlay of the layers shows at `path`, if it shows one.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub fn shown(&self, path: &Path) -> Result<Option<OwnedFd>> {
        uppermost(&self.0, path.as_os_str().as_bytes())
    }
}

/// Corrects the layer `upper`, which was `applied` alone, for its place on top of `lowers`: directories that the archive left out get the owner, mode, times and
/// attributes that they show below, and whiteouts of nothing go.
///
/// The lower layers must be whole themselves, so layers are settled in the order of the chain.
///
/// # Errors
/// Those of the filesystem.
pub fn settle(upper: BorrowedFd<'_>, lowers: &Lowers, applied: &Applied) -> Result<()> {
    let upper = upper.try_clone_to_owned().context(|| "duplicate a descriptor")?;
    let (upper, lowers) = (Root::from(upper), &lowers.0);
    for path in &applied.implicit {
        let path = path.as_os_str().as_bytes();
        if let (Some(directory), Some(lower)) = merged(&upper, lowers, path)? {
            copy_metadata(lower.as_fd(), directory.as_fd())
                .map_err(|errno| fault("fix the directory of", path, &errno.into()))?;
        }
    }
    for path in &applied.whited_out {
        let path = path.as_os_str().as_bytes();
        if let (Some(directory), None) = merged(&upper, lowers, path)? {
            remove_whiteouts(directory.as_fd())
                .map_err(|errno| fault("remove whiteouts in", path, &errno.into()))?;
        }
    }
    Ok(())
}

/// The directory that `upper` has at `path`, if it does, and the one that shows through from
/// `lowers`, if any does.
fn merged(
    upper: &Root,
    lowers: &[Root],
    path: &[u8],
) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    match look(upper, path)? {
        Look::Directory { fd, opaque: true } => Ok((Some(fd), None)),
        Look::Directory { fd, opaque: false } => Ok((Some(fd), uppermost(lowers, path)?)),
        Look::Absent | Look::Hidden => Ok((None, None)),
    }
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
    rustix::fs::futimens(to, &times(&stat))
}

/// Removes the whiteouts in a directory, whose times stay.
fn remove_whiteouts(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let before = rustix::fs::fstat(directory)?;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if is_whiteout(&stat) {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
        }
    }
    rustix::fs::futimens(directory, &times(&before))
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}
