//! Removing what is kept of a container, which more than one command may want at once.
//!
//! Who deletes a container locks its `state.json` first, as do those who come to it by its control
//! group, so that none of them gets at the next container of that name; and then its directory, as who creates one does.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use berth_types::{Result, ResultExt};
use containerd_shim_berth_v1::container::{Remains, cgroup_path};

use crate::lock;
use crate::record::{CONFIG, Found, Records, STATE, read_spec};

impl Records {
    /// The container `id`, for the caller alone to delete, or to change by its control group.
    ///
    /// # Errors
    /// NotFound when there is none; Aborted when somebody else doesn't come to an end with it.
    pub(crate) async fn claim(&self, id: &str) -> Result<Found> {
        let state = self.directory(id)?.join(STATE);
        let claim =
            lock::wait(&state, || format!("another command is at work on container {id}")).await?;
        let mut found = self.find(id)?;
        found.claim = claim;
        Ok(found)
    }

    /// Removes what a killed `create` left of container `id`, its control group with it. Waits for
    /// one that is on its way, and leaves the container alone.
    ///
    /// # Errors
    /// Aborted when `create` doesn't come to an end; FailedPrecondition when there are processes
    /// in its control group.
    pub(crate) async fn clear(&self, id: &str) -> Result<()> {
        let path = self.directory(id)?;
        let Some(directory) = self.draft_left(id, &path).await? else { return Ok(()) };
        if let Ok(spec) = read_spec(&path.join(CONFIG)) {
            // Its process is dead, since nobody holds the lock. Who is there is somebody else, and
            // the kill came before that was noticed.
            if !self.another_has(id, &cgroup_path(&spec, id)) {
                Remains::find(id, &path, &spec)?.cgroup().remove()?;
            }
        }
        remove(&path)?;
        drop(directory);
        Ok(())
    }

    /// The locked directory that has no state; `None` when there is a container, or nothing.
    async fn draft_left(&self, id: &str, path: &Path) -> Result<Option<fs::File>> {
        let state = path.join(STATE);
        let recorded = async {
            while !state.exists() {
                tokio::time::sleep(lock::GLANCE).await;
            }
        };
        let busy = || format!("container {id} is being created");
        let locked = tokio::select! {
            biased;
            () = recorded => return Ok(None),
            locked = lock::wait(path, busy) => locked?,
        };
        Ok(locked.filter(|_| !state.exists()))
    }

    /// Whether a container that is not `id` has the control group `cgroup`.
    fn another_has(&self, id: &str, cgroup: &Path) -> bool {
        let all = self.all().unwrap_or_default();
        all.iter().any(|other| {
            let theirs = other.spec().map(|spec| cgroup_path(&spec, &other.record.id));
            other.record.id != id && theirs.is_ok_and(|theirs| theirs == cgroup)
        })
    }
}

impl Found {
    /// Destroys the container, which was claimed, and forgets it.
    ///
    /// # Errors
    /// When its processes can't be killed: then it is there still. When its files can't be removed.
    pub(crate) async fn delete(self) -> Result<()> {
        self.remains()?.destroy().await?;
        let busy = || format!("process {} of the container is still there", self.record.pid);
        let locked = lock::wait(&self.path, busy).await?;
        remove(&self.path)?;
        drop(locked);
        Ok(())
    }
}

/// Removes the locked directory at `path`, of which the state goes first: without it, the rest is
/// what a killed `create` leaves.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let fine = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    fine(fs::remove_file(path.join(STATE)))
        .and_then(|()| fine(fs::remove_dir_all(path)))
        .context(|| format!("remove {}", path.display()))
}
