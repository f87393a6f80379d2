//! Waiting for a log to grow.

use std::io;
use std::path::Path;

use rustix::fs::inotify;
use tokio::net::unix::pipe;

/// Tells when anything changed in a log's directory: a write, or a file that was rotated.
pub(crate) struct Watch {
    /// An inotify descriptor: read like a pipe, it gives the events.
    events: pipe::Receiver,
}

impl Watch {
    pub(crate) fn directory(path: &Path) -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let inotify = inotify::init(flags)?;
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, path, events)?;
        Ok(Self { events: pipe::Receiver::from_owned_fd_unchecked(inotify)? })
    }

    /// Waits for a change since the last call. What changed is for the caller to look up.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        self.events.readable().await?;
        // Room for many events of the longest name (`inotify(7)`).
        let mut buffer = [0; 4096];
        loop {
            match self.events.try_read(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
