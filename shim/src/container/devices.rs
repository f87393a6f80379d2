//! Device nodes and the links that every `/dev` has.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount;
use berth_sys::path::Root;
use berth_types::spec::Device;
use berth_types::{Error, Result, ResultExt};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::masks::UNCHANGEABLE;
use super::mounts::{MountPlan, What};

/// A checked device node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    path: PathBuf,
    kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    owner: Option<(Uid, Gid)>,
}

/// The minor numbers of the memory devices (major 1) and the terminal (major 5) that the
/// specification gives every container.
const ALWAYS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Checks `linux.devices`.
pub(super) fn check(devices: &[Device]) -> Result<Vec<Node>> {
    devices.iter().map(Node::check).collect()
}

impl Node {
    fn check(device: &Device) -> Result<Self> {
        let invalid =
            |why: String| Error::invalid_argument(format!("linux.devices {:?} {why}", device.path));
        if !device.path.starts_with('/') {
            return Err(invalid("is not an absolute path".into()));
        }
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => return Err(invalid(format!("has type {other:?}: use c, u, b or p"))),
        };
        let number = |value: i64| match kind {
            FileType::Fifo => Ok(0),
            _ => u32::try_from(value)
                .map_err(|_| invalid(format!("has the number {value}, which no device has"))),
        };
        let owner = match (device.uid, device.gid) {
            (None | Some(0), None | Some(0)) => None,
            (uid, gid) => Some((Uid::from_raw(uid.unwrap_or(0)), Gid::from_raw(gid.unwrap_or(0)))),
        };
        Ok(Self {
            path: PathBuf::from(&device.path),
            kind,
            major: number(device.major)?,
            minor: number(device.minor)?,
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            owner,
        })
    }

    /// Makes the node inside of `root`, unless it is there. Where the caller may not make nodes, in
    /// a userns, the host's is bound.
    ///
    /// # Errors
    /// `EEXIST` when something else is there.
    fn make(&self, root: &Root) -> io::Result<()> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let parent = root.make_directory(parent)?;
        let name = self.path.file_name().ok_or(Errno::INVAL)?;
        let device = rustix::fs::makedev(self.major, self.minor);
        let mode = Mode::from_raw_mode(self.mode);
        match rustix::fs::mknodat(&parent, name, self.kind, mode, device) {
            Ok(()) => {}
            Err(Errno::EXIST) => return self.compare(&parent, name),
            Err(Errno::PERM) => return self.bind(root),
            Err(errno) => return Err(errno.into()),
        }
        if let Some((uid, gid)) = self.owner {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&parent, name, Some(uid), Some(gid), flags)?;
        }
        Ok(())
    }

    /// What went wrong when it was made.
    fn failure(&self, error: &io::Error) -> Error {
        let what = format!("make the device {}", self.path.display());
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::invalid_argument(format!("{what}: something else is there already"))
            }
            _ => Error::io(what, error),
        }
    }

    /// `EEXIST` unless `name` in `parent` is this device.
    fn compare(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let same_kind = FileType::from_raw_mode(stat.st_mode) == self.kind;
        let is_fifo = self.kind == FileType::Fifo;
        let number = rustix::fs::makedev(self.major, self.minor);
        match same_kind && (is_fifo || stat.st_rdev == number) {
            true => Ok(()),
            false => Err(Errno::EXIST.into()),
        }
    }

    fn bind(&self, root: &Root) -> io::Result<()> {
        let target = root.make_file(&self.path)?;
        let path = self.path.to_str().ok_or(Errno::INVAL)?;
        let copy = mount::copy_path(path, false)?;
        UNCHANGEABLE.apply(copy.as_fd())?;
        mount::attach(copy.as_fd(), target.as_fd())
    }
}

/// Fills `/dev` of `root`: the nodes and links that every container has, and `nodes`. A `/dev`
/// that one of `mounts` binds from the host is left alone.
pub(super) fn make(nodes: &[Node], mounts: &[MountPlan], root: &Root) -> Result<()> {
    let bound = |mount: &MountPlan| {
        matches!(mount.what, What::Bind { .. }) && mount.destination == Path::new("/dev")
    };
    if mounts.iter().any(bound) {
        return Ok(());
    }
    for node in nodes {
        node.make(root).map_err(|error| node.failure(&error))?;
    }
    // The spec may have some of them otherwise.
    let said = |path: &str| nodes.iter().any(|node| node.path == Path::new(path));
    for (path, major, minor) in ALWAYS.into_iter().filter(|(path, ..)| !said(path)) {
        let kind = FileType::CharacterDevice;
        let path = PathBuf::from(path);
        let node = Node { path, kind, major, minor, mode: 0o666, owner: None };
        match node.make(root) {
            // The image's own is the container's own affair.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(|error| node.failure(&error))?,
        }
    }
    let dev = root.make_directory(Path::new("/dev")).context(|| "find /dev")?;
    LINKS.iter().try_for_each(|(target, name)| link(target, &dev, name))
}

fn link(target: &str, dev: &OwnedFd, name: &str) -> Result<()> {
    match rustix::fs::symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Error::io(format!("link /dev/{name}"), &errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_can_not_be_are_refused() {
        let device = |path: &str, kind: &str, major| Device {
            path: path.into(),
            kind: kind.into(),
            major,
            ..Device::default()
        };
        assert!(check(&[device("/dev/fuse", "c", 10)]).is_ok());
        assert!(check(&[device("/run/pipe", "p", -1)]).is_ok());
        for bad in [device("fuse", "c", 10), device("/a", "x", 1), device("/a", "b", -1)] {
            assert!(check(&[bad]).is_err());
        }
    }
}
