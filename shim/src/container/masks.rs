//! `linux.maskedPaths` and `linux.readonlyPaths`: what a container sees of the kernel but may not
//! read or change.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount::{self, Change, Filesystem};
use berth_sys::path::Root;
use berth_types::{Error, Result, ResultExt};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::MountAttrFlags;

use super::place;

/// Devices can be written to on a read-only mount, their nodes can't be changed.
pub(super) const UNCHANGEABLE: Change = Change {
    set: MountAttrFlags::MOUNT_ATTR_RDONLY,
    clear: MountAttrFlags::empty(),
    propagation: None,
    recursive: false,
};

/// Covers each of `paths` that is there: a directory by an empty one, anything else by the host's
/// `/dev/null`.
pub(super) fn mask(paths: &[PathBuf], root: &Root) -> Result<()> {
    let mut covers = Covers::default();
    for path in paths {
        if let Some(target) = find(root, path)? {
            if is_root(root, &target, path)? {
                let message = format!("linux.maskedPaths: {path:?} is the root itself");
                return Err(Error::invalid_argument(message));
            }
            covers.cover(&target).context(|| format!("mask {}", path.display()))?;
        }
    }
    Ok(())
}

/// Makes each of `paths` that is there read-only, with what is mounted below it unless it is the
/// root.
pub(super) fn make_read_only(paths: &[PathBuf], root: &Root) -> Result<()> {
    let change =
        Change { set: MountAttrFlags::MOUNT_ATTR_RDONLY, recursive: true, ..Change::default() };
    for path in paths {
        let Some(target) = find(root, path)? else { continue };
        if is_root(root, &target, path)? {
            // What is mounted over it would not be seen.
            UNCHANGEABLE.apply(root.as_fd()).context(|| "make the root read-only")?;
            continue;
        }
        let rebind = || {
            let copy = mount::copy(target.as_fd(), "", true)?;
            change.apply(copy.as_fd())?;
            mount::attach(copy.as_fd(), target.as_fd())
        };
        rebind().context(|| format!("make {} read-only", path.display()))?;
    }
    Ok(())
}

fn is_root(root: &Root, target: &OwnedFd, path: &Path) -> Result<bool> {
    place::is_root(root, target).context(|| format!("look at {}", path.display()))
}

fn find(root: &Root, path: &Path) -> Result<Option<OwnedFd>> {
    match root.find(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(Error::io(format!("find {}", path.display()), &error)),
        },
    }
}

/// What is laid over masked paths; made when first needed.
#[derive(Default)]
struct Covers {
    /// A read-only empty filesystem that covers one path already.
    empty: Option<OwnedFd>,
    null: Option<OwnedFd>,
}

impl Covers {
    fn cover(&mut self, target: &OwnedFd) -> io::Result<()> {
        let stat = rustix::fs::fstat(target)?;
        let cover = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => match &self.empty {
                Some(empty) => mount::copy(empty.as_fd(), "", false)?,
                None => Filesystem::open("tmpfs")?.mount(MountAttrFlags::MOUNT_ATTR_RDONLY)?,
            },
            _ => {
                let null = mount::copy(self.null()?.as_fd(), "", false)?;
                // The node is the host's: its owner and mode are not the container's to change.
                UNCHANGEABLE.apply(null.as_fd())?;
                null
            }
        };
        mount::attach(cover.as_fd(), target.as_fd())?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.empty.get_or_insert(cover);
        }
        Ok(())
    }

    fn null(&mut self) -> io::Result<&OwnedFd> {
        match &mut self.null {
            Some(null) => Ok(null),
            none => Ok(none.insert(real_null()?)),
        }
    }
}

/// The host's `/dev/null`, if it is that: a mask by another file would show its content
/// (CVE-2025-31133).
fn real_null() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::openat(CWD, "/dev/null", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&null)?;
    let character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    match character && stat.st_rdev == rustix::fs::makedev(1, 3) {
        true => Ok(null),
        false => Err(io::Error::other("the host's /dev/null is not the null device")),
    }
}
