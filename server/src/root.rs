//! The daemon's directories, and the locks that make it the only one in them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use berth_types::{Error, Result, ResultExt};

use crate::listen::{LOOKS, PAUSE};

/// Mode of the root directory: images and records are nobody else's to read.
const ROOT_MODE: u32 = 0o700;
/// Mode of the state directory: processes with other users pass through to their root file
/// systems, but can't list it.
const STATE_MODE: u32 = 0o711;

/// Exclusive use of a directory. It ends when the value is dropped or the process dies, however
/// it dies.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Creates the root directory if needed and takes its lock, without waiting.
    ///
    /// # Errors
    /// [`Kind::FailedPrecondition`](berth_types::Kind::FailedPrecondition), naming its process,
    /// when another daemon has it.
    pub(crate) fn of_root(root: &Path) -> Result<Self> {
        Self::take("root", root, ROOT_MODE)
    }

    /// The same for the state directory: a daemon ends tasks that it has no record of, and these
    /// may be another's.
    ///
    /// # Errors
    /// As for [`of_root`](Self::of_root).
    pub(crate) fn of_state(state: &Path) -> Result<Self> {
        Self::take("state", state, STATE_MODE)
    }

    fn take(role: &str, directory: &Path, mode: u32) -> Result<Self> {
        create_directory(directory, mode)?;
        let path = directory.join("lock");
        let what = || format!("lock {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .context(what)?;
        match lock(&file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(taken(role, directory, &mut file)),
            Err(errno) => return Err(Error::io(what(), &errno.into())),
        }
        file.set_len(0).context(what)?;
        writeln!(file, "{}", std::process::id()).context(what)?;
        Ok(Self { _file: file })
    }
}

/// Locks `file`. A process that its last daemon has just made has the lock too, until it executes a
/// program, which can be a moment after the daemon's end: so it is asked for more than once.
fn lock(file: &File) -> rustix::io::Result<()> {
    for _ in 0..LOOKS {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// The refusal of a directory that another daemon has, whose process id `file` holds.
fn taken(role: &str, directory: &Path, file: &mut File) -> Error {
    let mut holder = String::new();
    let holder = match file.take(32).read_to_string(&mut holder) {
        Ok(_) if !holder.trim().is_empty() => format!(" (process {})", holder.trim()),
        _ => String::new(),
    };
    Error::failed_precondition(format!(
        "{role} {} is in use by another berthd{holder}: stop it, or choose another --root, --state \
         and --address",
        directory.display()
    ))
}

/// Makes sure that `path` is a directory with `mode`, whatever the mode was before.
fn create_directory(path: &Path, mode: u32) -> Result<()> {
    let what = || format!("create directory {}", path.display());
    DirBuilder::new().recursive(true).mode(0o711).create(path).context(what)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    #[test]
    fn a_second_lock_is_refused_with_the_holder_and_a_dropped_one_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("a/root");
        let first = DirectoryLock::of_root(&root).unwrap();
        let error = DirectoryLock::of_root(&root).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.message().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        DirectoryLock::of_root(&root).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, ROOT_MODE);
    }
}
