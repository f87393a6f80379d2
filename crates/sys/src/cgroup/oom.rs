//! Being told that memory ran out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_types::{Result, ResultExt};
use rustix::io::Errno;

/// Becomes readable when memory ran out in the cgroup. On v1 that is also the case once, when the
/// cgroup is removed: [`super::Cgroup::oom_kills`] tells.
///
/// The descriptor is an eventfd (v1, `memory.oom_control`) or an inotify instance (v2,
/// `memory.events`), non-blocking.
#[derive(Debug)]
pub struct OomWatch {
    descriptor: OwnedFd,
}

impl OomWatch {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }

    /// Takes what is there to read, so that only something new makes it readable again. Says
    /// whether there was anything.
    pub fn clear(&self) -> Result<bool> {
        let mut any = false;
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.descriptor, &mut buffer) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(any),
                Ok(_) => any = true,
                Err(Errno::INTR) => {}
                Err(error) => {
                    return Err(std::io::Error::from(error)).context(|| "read OOM events");
                }
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<OomWatch> for OwnedFd {
    fn from(watch: OomWatch) -> Self {
        watch.descriptor
    }
}
