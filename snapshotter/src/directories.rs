//! What snapshotters that keep each snapshot in a directory named by its number have in common.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use berth_store::Durability;
use berth_types::{Error, Result, ResultExt};

use crate::contract::{Kind, VOLATILE};
use crate::records::Record;

/// What need not survive a crash is recorded without waiting for the disk.
pub(crate) fn durability(record: &Record) -> Durability {
    match record.labels.contains_key(VOLATILE) {
        true => Durability::Buffered,
        false => Durability::Synced,
    }
}

/// Makes a snapshot's directories. The root of the merged tree shows the owner and mode of the
/// topmost directory, which therefore are those of the layer `below`.
pub(crate) fn make_directories(
    directory: &Path,
    kind: Kind,
    below: Option<&Path>,
) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(directory)?;
    // Before the one that is looked for after a power cut, which may have taken the later ones.
    if kind == Kind::Active {
        DirBuilder::new().mode(0o711).create(directory.join("work"))?;
    }
    let files = directory.join("fs");
    DirBuilder::new().mode(0o755).create(&files)?;
    match below {
        Some(below) => {
            let like = fs::metadata(below)?;
            std::os::unix::fs::chown(&files, Some(like.uid()), Some(like.gid()))?;
            fs::set_permissions(&files, Permissions::from_mode(like.mode() & 0o7777))?;
        }
        // The mode above was subject to the umask.
        None => fs::set_permissions(&files, Permissions::from_mode(0o755))?,
    }
    Ok(())
}

/// What is to be removed may be gone.
pub(crate) fn missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// The ids that have a directory.
pub(crate) fn directories(directory: &Path) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory)? {
        ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    Ok(ids)
}

/// Syncs the filesystem that `files` is on: for a layer's many files that is cheaper than an
/// fsync of each.
pub(crate) fn sync(files: &Path) -> Result<()> {
    let what = || format!("sync {}", files.display());
    let directory = fs::File::open(files).context(what)?;
    rustix::fs::syncfs(&directory).map_err(io::Error::from).context(what)
}

/// Runs what may take long on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    action: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(action)
        .await
        .map_err(|error| Error::internal(format!("a snapshotter's thread failed: {error}")))?
}
