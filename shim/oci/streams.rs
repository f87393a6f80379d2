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

/// How many sockets of a service manager's come with this program, from descriptor 3 on
/// (`sd_listen_fds(3)`).
pub(crate) fn handed_in() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse().ok();
    let ours = number("LISTEN_PID") == Some(std::process::id());
    number("LISTEN_FDS").filter(|_| ours).unwrap_or(0)
}

/// What a process is told of `count` such sockets, which it takes over as its pidns's first one.
pub(crate) fn announce(count: u32, environment: &mut Vec<String>) {
    if count > 0 {
        environment.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
    }
}

/// Checks that `count` descriptors from 3 on are open.
///
/// # Errors
/// InvalidArgument when one isn't.
pub(crate) fn check_preserved(count: u32) -> Result<()> {
    let last = count
        .checked_add(handed_in().saturating_add(3))
        .filter(|last| *last <= 1 << 20)
        .ok_or_else(|| {
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
