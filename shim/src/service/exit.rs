//! How a process ended, in memory and on disk.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use berth_proto::containerd::task::v3::DeleteResponse;
use berth_types::{Result, ResultExt};
use prost::Message;
use prost_types::Timestamp;
use rustix::process::WaitStatus;

/// The record's file in the bundle: how the container's init ended, an encoded DeleteResponse.
const RECORD: &str = "exit";

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// 0 to 255; 128+n after signal n.
    pub(crate) status: u32,
    /// When it was reaped.
    pub(crate) at: SystemTime,
}

impl Exit {
    /// The exit that the kernel reports now.
    pub(crate) fn now(status: WaitStatus) -> Self {
        let signal = status.terminating_signal().map(|signal| 128 + signal);
        let status = status.exit_status().or(signal).unwrap_or(255);
        Self { status: status as u32, at: SystemTime::now() }
    }

    /// The exit of a process that is killed by whoever finds it alone.
    pub(crate) fn killed() -> Self {
        Self { status: 137, at: SystemTime::now() }
    }

    /// The time as messages have it.
    pub(crate) fn timestamp(&self) -> Option<Timestamp> {
        Some(self.at.into())
    }

    /// The answer to Delete.
    pub(crate) fn response(&self, pid: i32) -> DeleteResponse {
        DeleteResponse { pid: pid as u32, exit_status: self.status, exited_at: self.timestamp() }
    }
}

/// Keeps `response` in `bundle`, whole or not at all, for whoever comes after this shim.
pub(crate) fn record(bundle: &Path, response: &DeleteResponse) -> Result<()> {
    let (path, fresh) = (bundle.join(RECORD), bundle.join(".exit"));
    fs::write(&fresh, response.encode_to_vec())
        .and_then(|()| fs::rename(&fresh, &path))
        .context(|| format!("record an exit in {}", path.display()))
}

/// The record in `bundle`, if there is a sound one.
pub(crate) fn recorded(bundle: &Path) -> Option<DeleteResponse> {
    DeleteResponse::decode(&*fs::read(bundle.join(RECORD)).ok()?).ok()
}

/// Takes the record away: the exit has been acknowledged.
pub(crate) fn forget(bundle: &Path) -> Result<()> {
    match fs::remove_file(bundle.join(RECORD)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(|| "remove an exit record")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_lasts_until_it_is_acknowledged() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(recorded(bundle.path()), None);
        let response = Exit { status: 7, at: SystemTime::now() }.response(42);
        record(bundle.path(), &response).unwrap();
        assert_eq!(recorded(bundle.path()), Some(response));
        forget(bundle.path()).unwrap();
        assert_eq!(recorded(bundle.path()), None);
        forget(bundle.path()).unwrap();
    }
}
