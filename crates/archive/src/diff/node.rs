//! A file of a tree as a member of an archive.

use std::fs::File;

use berth_types::Result;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::entry::{Device, Entry, EntryKind, Time, Xattr};
use crate::tree::{self, Directory, fault};
use crate::xattr;

/// What `name` in `parent` is; `None` when it is gone.
pub(super) fn stat(parent: &Directory, name: &[u8], path: &[u8]) -> Result<Option<Stat>> {
    match tree::stat(parent, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(fault("look up", path, &errno.into())),
    }
}

/// Describes `name` in `parent`, which is at `path`; `None` for a socket.
pub(super) fn describe(
    parent: &Directory,
    name: &[u8],
    path: &[u8],
    stat: &Stat,
) -> Result<Option<Entry>> {
    let failed = |errno: Errno| fault("examine", path, &errno.into());
    let device =
        Device { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink(
            rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed)?.into_bytes(),
        ),
        FileType::CharacterDevice => EntryKind::CharacterDevice(device),
        FileType::BlockDevice => EntryKind::BlockDevice(device),
        FileType::Fifo => EntryKind::Fifo,
        _ => return Ok(None),
    };
    Ok(Some(Entry {
        size: if kind == EntryKind::File { stat.st_size.cast_unsigned() } else { 0 },
        kind,
        path: path.to_vec(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as i64 },
        xattrs: xattrs(parent, name).map_err(failed)?,
    }))
}

/// The attributes that belong to a layer: of `security.*`, which else is this machine's policy,
/// only capabilities.
fn xattrs(parent: &Directory, name: &[u8]) -> Result<Vec<Xattr>, Errno> {
    let path = parent.proc_path(name);
    let mut xattrs = Vec::new();
    for name in xattr::list_at(&path)? {
        let foreign = name.starts_with(b"security.") && name != b"security.capability";
        if let Ok(text) = String::from_utf8(name.clone())
            && !foreign
        {
            xattrs.push(Xattr { name: text, value: xattr::get_at(&path, &name)? });
        }
    }
    Ok(xattrs)
}

/// Opens the regular file `name` in `parent`. Something put in its place isn't followed, and
/// doesn't block.
pub(super) fn open(parent: &Directory, name: &[u8], path: &[u8]) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        Err(errno) => Err(fault("open", path, &errno.into())),
    }
}

/// Opens the directory `name` in `parent`.
pub(super) fn open_directory(parent: &Directory, name: &[u8], path: &[u8]) -> Result<Directory> {
    match tree::open_child(parent, name) {
        Ok(fd) => Ok(Directory::made(fd, 0)),
        Err(error) => Err(fault("open", path, &error)),
    }
}
