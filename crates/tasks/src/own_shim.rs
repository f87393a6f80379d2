//! Our own shim's program, out of reach of the containers that it runs.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program, opened once for all shims: after an upgrade, a running daemon goes on with the
/// shim that it came with.
pub(crate) struct OwnShim {
    path: PathBuf,
    sealed: Option<OwnedFd>,
}

impl OwnShim {
    /// Opens the program at `path` so that its `/proc/PID/exe` can't be written through
    /// (CVE-2019-5736). Where the kernel can't do that, the shims still aren't dumpable while a
    /// container could look at them.
    pub(crate) fn open(path: &Path) -> Self {
        let sealed = berth_sys::exec::sealed(path)
            .inspect_err(
                |error| tracing::warn!(%error, path = %path.display(), "can't seal the shim"),
            )
            .ok();
        Self { path: path.to_owned(), sealed }
    }

    /// What to execute instead of the file; the command's first word still names that.
    pub(crate) fn command(&self) -> Command {
        let Some(sealed) = &self.sealed else { return Command::new(&self.path) };
        let mut command = Command::new(format!("/proc/self/fd/{}", sealed.as_raw_fd()));
        command.arg0(&self.path);
        command
    }
}
