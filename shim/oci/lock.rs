//! Locks on files that others may remove and make again at any time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use berth_types::{Error, Result, ResultExt};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long what another command does with a container may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
pub(crate) const GLANCE: Duration = Duration::from_millis(5);

/// Locks the file or directory at `path` for as long as what is returned is open; `None` when
/// somebody else has locked it.
///
/// # Errors
/// Those of `open(2)`: NotFound when there is none.
pub(crate) fn take(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = File::open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            other => other?,
        }
        // Else it was removed meanwhile, and the lock is on what nobody finds any more.
        if is_at(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// As [`take`], but waits for others; `None` when there is no such file, or not any more.
///
/// # Errors
/// Aborted, with what `busy` says, when others don't come to an end.
pub(crate) async fn wait(path: &Path, busy: impl FnOnce() -> String) -> Result<Option<File>> {
    let locked = tokio::time::timeout(PATIENCE, async {
        loop {
            match take(path) {
                Ok(None) => tokio::time::sleep(GLANCE).await,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => return other,
            }
        }
    });
    match locked.await {
        Ok(locked) => locked.context(|| format!("lock {}", path.display())),
        Err(_) => Err(Error::aborted(busy())),
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (ours, theirs) = (file.metadata()?, fs::metadata(path)?);
    Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_is_on_what_is_found_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        assert!(wait(&path, String::new).await.unwrap().is_none());
        fs::create_dir(&path).unwrap();
        let first = take(&path).unwrap().unwrap();
        assert!(take(&path).unwrap().is_none());
        fs::remove_dir(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let second = take(&path).unwrap().unwrap();
        assert!(!is_at(&first, &path).unwrap() && is_at(&second, &path).unwrap());
        drop((first, second));
        assert!(wait(&path, String::new).await.unwrap().is_some());
    }
}
