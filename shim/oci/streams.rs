//! The descriptors of the caller that a process is to have.

use std::os::fd::BorrowedFd;
use std::path::Path;

use berth_types::{Error, Result, ResultExt};
use containerd_shim_berth_v1::container::{Io, Stdio};

/// This program's own standard streams.
///
/// # Errors
/// When one of them can't be duplicated.
pub(crate) fn inherited() -> Result<Io> {
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().context(|| "copy a standard stream");
    Ok(Io::Pipes(Stdio {
        stdin: copy(rustix::stdio::stdin())?,
        stdout: copy(rustix::stdio::stdout())?,
        stderr: copy(rustix::stdio::stderr())?,
    }))
}

/// Checks that `count` descriptors from 3 on are open.
///
/// # Errors
/// InvalidArgument when one isn't.
pub(crate) fn check_preserved(count: u32) -> Result<()> {
    let last = count.checked_add(3).filter(|last| *last <= 1 << 20).ok_or_else(|| {
        Error::invalid_argument(format!("--preserve-fds {count}: nobody has so many"))
    })?;
    for number in 3..last {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            let message = format!("--preserve-fds {count}: descriptor {number} is not open");
            return Err(Error::invalid_argument(message));
        }
    }
    Ok(())
}
