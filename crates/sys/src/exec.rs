//! Becoming another program, and starting one that nobody can overwrite.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::MountAttrFlags;

use crate::mount::overlay;

/// Replaces the calling program by that at `path` (`execve(2)`); returns only when that failed.
///
/// # Errors
/// Those of `execve(2)`.
pub fn execve(path: &CStr, args: &[CString], environment: &[CString]) -> io::Result<Infallible> {
    let args = pointers(args);
    let environment = pointers(environment);
    // SAFETY: `path` ends in a zero; both arrays end in a null pointer and point to strings that
    // end in a zero and outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), environment.as_ptr()) };
    Err(io::Error::last_os_error())
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// The program at the absolute `path`, seen through a read-only overlay that is mounted nowhere.
///
/// Run through this descriptor (as `/proc/self/fd/N`), a program may let a container's processes
/// see its `/proc/PID/exe`: that leads to the overlay, where nothing can be written, and not to
/// the file (CVE-2019-5736). It costs no copy of the program in memory.
///
/// # Errors
/// When the kernel has no overlay filesystem, or there is no such file.
pub fn sealed(path: &Path) -> io::Result<OwnedFd> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let unnamed = || io::Error::from_raw_os_error(libc::EINVAL);
    let directory = directory.to_str().ok_or_else(unnamed)?;
    let directory = directory.replace('\\', "\\\\").replace(':', "\\:");
    // An overlay needs two layers when it has no upper directory: the second is never looked at
    // for a name that the first has.
    let layers = format!("lowerdir={directory}:/sys/kernel");
    let mount = overlay(&[&layers], MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    let mount = mount.ok_or_else(|| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?;
    Ok(rustix::fs::openat2(
        &mount,
        name,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )?)
}

/// Whether the running program was started through [`sealed`].
///
/// # Errors
/// When `/proc/self/exe` can't be looked at.
pub fn is_sealed() -> io::Result<bool> {
    let exe =
        rustix::fs::openat(CWD, "/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let filesystem = rustix::fs::fstatvfs(&exe)?;
    Ok(filesystem.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;

    #[test]
    fn a_sealed_program_runs_and_can_not_be_written() {
        let sealed = sealed(Path::new("/bin/busybox")).unwrap();
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        let status = std::process::Command::new(&path).arg0("true").status().unwrap();
        assert!(status.success());
        let error = std::fs::OpenOptions::new().write(true).open(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }
}
