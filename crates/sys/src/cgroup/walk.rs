//! Going through a cgroup and all below it, however deep a container has nested them: names of
//! directories may get too long for a path, and descriptors too many, so that one directory is
//! open at a time and led to from its parent.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// A directory on the way from the top, and those in it that are still to be gone to.
struct Level {
    name: OsString,
    below: Vec<OsString>,
}

/// Calls `visit` with `top` and with each directory below, parents first, and `leave` with each
/// parent and the name of a directory in it that has been gone through. Nothing happens when there
/// is no `top`; what is removed meanwhile is passed over.
pub(super) fn walk(
    top: &Path,
    mut visit: impl FnMut(BorrowedFd<'_>) -> io::Result<()>,
    mut leave: impl FnMut(BorrowedFd<'_>, &OsStr) -> io::Result<()>,
) -> io::Result<()> {
    let Some(mut here) = directory(CWD, top.as_os_str())? else { return Ok(()) };
    visit(here.as_fd())?;
    let mut way = vec![Level { name: OsString::new(), below: children(&here)? }];
    while let Some(level) = way.last_mut() {
        if let Some(name) = level.below.pop() {
            let Some(child) = directory(here.as_fd(), &name)? else { continue };
            here = child;
            visit(here.as_fd())?;
            way.push(Level { name, below: children(&here)? });
            continue;
        }
        let left = way.pop().map(|level| level.name).unwrap_or_default();
        if !way.is_empty() {
            here = rustix::fs::openat(&here, "..", FLAGS, Mode::empty())?;
            leave(here.as_fd(), &left)?;
        }
    }
    Ok(())
}

/// The text of the file `name` in `directory`.
pub(super) fn read_at(directory: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut text = String::new();
    File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Removes the empty directory `name` in `parent`.
pub(super) fn remove_at(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// `None` when it is gone.
fn directory(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    match rustix::fs::openat(parent, name, FLAGS, Mode::empty()) {
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

fn children(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    // One link for each directory inside, and two of its own.
    if rustix::fs::fstat(directory)?.st_nlink == 2 {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_directories_are_gone_through_however_deep() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("a/b")).unwrap();
        std::fs::create_dir(top.path().join("c")).unwrap();
        std::fs::write(top.path().join("file"), "").unwrap();
        let name = "x".repeat(200);
        let mut deep = File::open(top.path().join("c")).unwrap();
        for _ in 0..40 {
            rustix::fs::mkdirat(&deep, name.as_str(), Mode::RWXU).unwrap();
            deep = rustix::fs::openat(&deep, name.as_str(), FLAGS, Mode::empty()).unwrap().into();
        }
        let (mut seen, mut left) = (0, Vec::new());
        walk(
            top.path(),
            |_| {
                seen += 1;
                Ok(())
            },
            |parent, name| {
                left.push(name.to_owned());
                remove_at(parent, name)
            },
        )
        .unwrap();
        assert_eq!((seen, left.len()), (44, 43));
        let at = |name: &str| left.iter().position(|left| left == name).unwrap();
        assert!(at("b") < at("a"));
        assert_eq!(std::fs::read_dir(top.path()).unwrap().count(), 1);
        walk(&top.path().join("none"), |_| panic!("there is none"), |_, _| Ok(())).unwrap();
    }
}
