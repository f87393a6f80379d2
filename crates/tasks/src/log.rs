//! A shim's log: a FIFO in its bundle, which the daemon copies into its own log.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_types::{Result, ResultExt};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::net::unix::pipe;
use tokio::task::AbortHandle;

use crate::bundle::Bundle;

/// The copying of one shim's log. Dropping it ends that.
pub(crate) struct LogRelay(AbortHandle);

impl Drop for LogRelay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl LogRelay {
    /// Makes the FIFO, if it isn't there, and starts copying.
    pub(crate) fn start(bundle: &Bundle) -> Result<Self> {
        let path = bundle.log();
        let what = || format!("read shim log {}", path.display());
        match rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from(0o600), 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(io::Error::from(errno)).context(what),
        }
        let log = pipe::Receiver::from_owned_fd(open(&path).context(what)?).context(what)?;
        let copying = copy(log, bundle.namespace.clone(), bundle.id.clone());
        Ok(Self(tokio::spawn(copying).abort_handle()))
    }
}

/// The FIFO's writing end for our own shim: its standard error. It is open for reading too, so
/// that the shim isn't killed for writing while no daemon reads; and it never blocks: what doesn't
/// fit is lost.
pub(crate) fn writer(bundle: &Bundle) -> Result<OwnedFd> {
    let path = bundle.log();
    open(&path).context(|| format!("open shim log {}", path.display()))
}

/// Open for writing too, a FIFO neither blocks in `open` nor ends when its last writer leaves.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

async fn copy(log: pipe::Receiver, namespace: String, id: String) {
    let mut lines = BufReader::with_capacity(512, log).split(b'\n');
    loop {
        match lines.next_segment().await {
            Ok(Some(line)) => {
                let line = String::from_utf8_lossy(&line);
                tracing::info!(target: "shim", %namespace, %id, "{line}");
            }
            Ok(None) => return,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%namespace, %id, %error, "the shim's log can't be read");
                return;
            }
        }
    }
}
