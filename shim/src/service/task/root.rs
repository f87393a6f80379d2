//! Keeping the root filesystem's last close away from the init's end.
//!
//! When the last reference to an overlay goes, its upper filesystem is written to disk, which may
//! take hundreds of milliseconds. The init's end would wait for that, and with it everybody who
//! waits for the init. A descriptor of the root, held until the exit is published and then closed
//! by a child, keeps them apart.

use std::os::fd::OwnedFd;
use std::sync::PoisonError;

use berth_proto::containerd::types::Mount;
use berth_sys::last_close;
use berth_types::{Result, ResultExt};
use rustix::fs::{Mode, OFlags};

use super::Task;

impl Task {
    /// Holds the root of the init `pid`, if `mounts` make it one that is slow to go.
    pub(super) fn hold_root(&self, mounts: &[Mount], pid: i32) -> Result<()> {
        if mounts.iter().any(is_slow_to_go) {
            let path = format!("/proc/{pid}/root");
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(&path, flags, Mode::empty())
                .map_err(std::io::Error::from)
                .context(|| format!("open {path}"))?;
            self.keep(Some(root));
        }
        Ok(())
    }

    /// Lets go of it. Nobody waits for what that takes.
    pub(super) fn let_go_of_root(&self) {
        if let Some(root) = self.keep(None)
            && let Err(error) = last_close::in_child(root)
        {
            tracing::debug!("the root filesystem was closed by the shim itself: {error}");
        }
    }

    fn keep(&self, root: Option<OwnedFd>) -> Option<OwnedFd> {
        // The exchange is one step, so that a panic elsewhere leaves it whole.
        std::mem::replace(&mut *self.root.lock().unwrap_or_else(PoisonError::into_inner), root)
    }
}

/// An overlay that is written to and doesn't leave out syncing.
fn is_slow_to_go(mount: &Mount) -> bool {
    let has = |prefix: &str| mount.options.iter().any(|option| option.starts_with(prefix));
    mount.r#type == "overlay" && has("upperdir=") && !has("volatile")
}
