//! Where in the container's root something was found, links followed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use berth_sys::path::Root;
use rustix::fs::{AtFlags, PROC_SUPER_MAGIC, StatxFlags};

/// Whether `target` is the root itself. What is mounted there is for those who join the container,
/// whose root it becomes, and not for the container, which has the one underneath.
pub(super) fn is_root(root: &Root, target: &OwnedFd) -> io::Result<bool> {
    let identity = |fd: BorrowedFd<'_>| {
        let flags = StatxFlags::INO | StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, flags)?;
        Ok::<_, io::Error>((stat.stx_mnt_id, stat.stx_ino))
    };
    Ok(identity(root.as_fd())? == identity(target.as_fd())?)
}

/// Whether `target` is a procfs or in one.
pub(super) fn is_in_procfs(target: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(target)?.f_type == PROC_SUPER_MAGIC)
}

/// The path of `target` from `root` on, as it is now; empty for the root itself.
///
/// # Errors
/// `ENOENT` when it is not below the root any more.
pub(super) fn path_in(root: &Root, target: &OwnedFd) -> io::Result<PathBuf> {
    let name = |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let (root, target) = (name(root.as_fd())?, name(target.as_fd())?);
    match target.strip_prefix(root) {
        Ok(path) => Ok(path.to_owned()),
        Err(_) => Err(io::ErrorKind::NotFound.into()),
    }
}
