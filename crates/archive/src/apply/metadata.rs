//! Owner, mode, attributes and times, in this order: a change of owner takes set-user-ID bits and
//! capabilities away, a change of mode or attributes nothing.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use berth_types::{Kind, Result};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, fstat, futimens, lsetxattr, openat, utimensat,
};
use rustix::io::Errno;

use super::Layer;
use crate::entry::{Entry, EntryKind, Xattr, split};
use crate::tree::{Directory, Fresh, fault, open_child};

/// The times of a file as the kernel takes them.
pub(super) type Times = Timestamps;

/// The times of `entry`; that of the last access is taken as the same.
pub(super) fn times(entry: &Entry) -> Times {
    let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: entry.mtime.nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets what a regular file just made doesn't have yet.
pub(super) fn set_file(
    entry: &Entry,
    parent: &Directory,
    file: &OwnedFd,
    fresh: Fresh,
) -> Result<()> {
    let failed = |what| move |errno: Errno| fault(what, &entry.path, &errno.into());
    if parent.inherits || owner_differs(entry, fresh) {
        let (uid, gid) = owner(entry);
        fchown(file, uid, gid).map_err(failed("set the owner of"))?;
    }
    if parent.inherits || entry.mode & (0o7000 | fresh.umask) != 0 {
        fchmod(file, Mode::from_bits_retain(entry.mode)).map_err(failed("set the mode of"))?;
    }
    set_xattrs(entry, |xattr| fsetxattr(file, &xattr.name, &xattr.value, XattrFlags::empty()))?;
    futimens(file, &times(entry)).map_err(failed("set the time of"))
}

/// Sets all of a directory but its times.
pub(super) fn set_directory(entry: &Entry, directory: &Directory) -> Result<()> {
    let failed = |what| move |errno: Errno| fault(what, &entry.path, &errno.into());
    let (uid, gid) = owner(entry);
    fchown(directory, uid, gid).map_err(failed("set the owner of"))?;
    fchmod(directory, Mode::from_bits_retain(entry.mode)).map_err(failed("set the mode of"))?;
    set_xattrs(entry, |xattr| fsetxattr(directory, &xattr.name, &xattr.value, XattrFlags::empty()))
}

/// Sets what a symbolic link, device or named pipe just made doesn't have yet.
pub(super) fn set_node(entry: &Entry, parent: &Directory, name: &[u8], fresh: Fresh) -> Result<()> {
    let failed = |what| move |errno: Errno| fault(what, &entry.path, &errno.into());
    if parent.inherits || owner_differs(entry, fresh) {
        let (uid, gid) = owner(entry);
        chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the owner of"))?;
    }
    let link = matches!(entry.kind, EntryKind::Symlink(_));
    if !link && (parent.inherits || entry.mode & (0o7000 | fresh.umask) != 0) {
        set_node_mode(entry, parent.as_fd(), name).map_err(failed("set the mode of"))?;
    }
    if !entry.xattrs.is_empty() {
        let path = parent.proc_path(name);
        set_xattrs(entry, |xattr| {
            lsetxattr(path.as_slice(), &xattr.name, &xattr.value, XattrFlags::empty())
        })?;
    }
    utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the time of"))
}

/// Opening a device could do things, and `chmod` by name could follow a link put in its place, so
/// the mode is set through a reference.
fn set_node_mode(entry: &Entry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = openat(parent, name, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", node.as_raw_fd());
    rustix::fs::chmod(path, Mode::from_bits_retain(entry.mode))
}

/// Sets the attributes by `set`. Those that the filesystem, or the kind of file, can't have are
/// left out, as by other readers.
fn set_xattrs(entry: &Entry, set: impl Fn(&Xattr) -> Result<(), Errno>) -> Result<()> {
    for xattr in &entry.xattrs {
        match set(xattr) {
            Ok(()) => {}
            Err(errno @ (Errno::OPNOTSUPP | Errno::PERM)) if xattr.name.starts_with("user.") => {
                let path = crate::entry::shown(&entry.path);
                tracing::warn!(path, attribute = xattr.name, %errno, "attribute left out");
            }
            Err(errno) => {
                let what = format!("set the attribute {:?} of", xattr.name);
                return Err(fault(&what, &entry.path, &errno.into()));
            }
        }
    }
    Ok(())
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

fn owner_differs(entry: &Entry, fresh: Fresh) -> bool {
    (entry.uid, entry.gid) != (fresh.uid, fresh.gid)
}

impl Layer {
    /// Sets the times of all directories, which making things in them changed. Something else may
    /// have taken a directory's place, or that of one above it.
    pub(super) fn set_directory_times(&mut self) -> Result<()> {
        for (path, inode, times) in std::mem::take(&mut self.times) {
            let (parent, name) = split(&path);
            let parent = match self.tree.find(parent) {
                Ok(Some(parent)) => parent,
                Ok(None) => continue,
                Err(error) if error.kind() == Kind::InvalidArgument => continue,
                Err(error) => return Err(error),
            };
            let name = if name.is_empty() { b"." } else { name };
            let Ok(directory) = open_child(&parent, name) else { continue };
            let failed = |errno: Errno| fault("set the time of", &path, &errno.into());
            if fstat(&directory).map_err(failed)?.st_ino == inode {
                futimens(&directory, &times).map_err(failed)?;
            }
        }
        Ok(())
    }
}
