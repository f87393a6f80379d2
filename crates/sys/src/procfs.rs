//! Writing to procfs, and to nothing that only looks like it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags};
use rustix::mount::MountAttrFlags;

use crate::mount::Filesystem;

/// The root of a procfs. Lookups never leave it and never cross into a mount inside of it, so
/// that neither a link nor a bind mount can redirect a write (CVE-2025-52881).
#[derive(Debug)]
pub struct Procfs(OwnedFd);

impl Procfs {
    /// What is mounted at `/proc`.
    ///
    /// # Errors
    /// `ENOTSUP` when that is not a procfs; else those of `open(2)`.
    pub fn host() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/proc", flags, Mode::empty())?;
        if rustix::fs::fstatfs(&root)?.f_type != PROC_SUPER_MAGIC {
            return Err(rustix::io::Errno::OPNOTSUPP.into());
        }
        Ok(Self(root))
    }

    /// A new procfs of the caller's pidns that is mounted nowhere.
    ///
    /// # Errors
    /// Those of `fsopen(2)` and `fsmount(2)`.
    pub fn private() -> io::Result<Self> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(Self(Filesystem::open("proc")?.mount(attributes)?))
    }

    /// Writes `value` to the file at `path`, which starts with no slash, by one `write(2)`.
    ///
    /// # Errors
    /// Those of `openat2(2)` and `write(2)`.
    pub fn write(&self, path: &Path, value: &[u8]) -> io::Result<()> {
        let file = rustix::fs::openat2(
            &self.0,
            path,
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS,
        )?;
        match rustix::io::write(&file, value)? {
            written if written == value.len() => Ok(()),
            _ => Err(rustix::io::Errno::IO.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_reach_procfs_and_nothing_outside_of_it() {
        let procfs = Procfs::host().unwrap();
        let path = format!("{}/comm", std::process::id());
        procfs.write(Path::new(&path), b"renamed").unwrap();
        let comm = std::fs::read_to_string(format!("/proc/{path}")).unwrap();
        assert_eq!(comm, "renamed\n");
        assert!(procfs.write(Path::new("../dev/null"), b"x").is_err());
        assert!(procfs.write(Path::new("self/root/dev/null"), b"x").is_err());
    }
}
