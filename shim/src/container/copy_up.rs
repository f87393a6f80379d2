//! `tmpcopyup`: a tmpfs begins with what it covers.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

/// No directories are nested deeper than this: each level takes descriptors and stack.
const DEPTH_MAX: usize = 128;

/// Copies what is in the directory `from` into the empty directory `to`: files with their owners
/// and modes, links, and nodes where the caller may make some. Nothing outside of `from` is read,
/// whatever is done to it meanwhile.
///
/// # Errors
/// Those of reading and writing; `ELOOP` when directories are nested too deeply.
pub(super) fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    copy_directory(from, to, 0)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(Errno::LOOP.into());
    }
    for entry in Dir::read_from(open(from, c".", OFlags::DIRECTORY)?)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        copy_entry(&Entry { from, to, name, stat }, depth)?;
    }
    Ok(())
}

struct Entry<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    name: &'a std::ffi::CStr,
    stat: Stat,
}

fn copy_entry(entry: &Entry<'_>, depth: usize) -> io::Result<()> {
    let Entry { from, to, name, stat } = entry;
    let mode = Mode::from_raw_mode(stat.st_mode);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, *name, Mode::RWXU)?;
            let inside = open(*from, name, OFlags::DIRECTORY)?;
            let copy = open(*to, name, OFlags::DIRECTORY)?;
            copy_directory(inside.as_fd(), copy.as_fd(), depth + 1)?;
            adopt(&copy, stat)
        }
        FileType::RegularFile => {
            // What was a file may be a FIFO by now.
            let source = open(*from, name, OFlags::NONBLOCK)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let copy = rustix::fs::openat(to, *name, flags, Mode::RUSR | Mode::WUSR)?;
            let mut copy = File::from(copy);
            io::copy(&mut File::from(source), &mut copy)?;
            adopt(&OwnedFd::from(copy), stat)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, *name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, *name)?;
            own(entry)
        }
        kind => match rustix::fs::mknodat(to, *name, kind, mode, stat.st_rdev) {
            Ok(()) => own(entry),
            Err(Errno::PERM) => Ok(()),
            Err(errno) => Err(errno.into()),
        },
    }
}

fn open(directory: BorrowedFd<'_>, name: &std::ffi::CStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}

/// Gives a copied file or directory the owner and mode of its original, in this order: a change of
/// owner takes set-user-ID bits away.
fn adopt(copy: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(copy, Some(uid), Some(gid))?;
    Ok(rustix::fs::fchmod(copy, Mode::from_raw_mode(stat.st_mode))?)
}

fn own(Entry { to, name, stat, .. }: &Entry<'_>) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::chownat(to, *name, Some(uid), Some(gid), flags)?)
}
