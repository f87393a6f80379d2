//! What is wrong with blobs, and what is in the store without being one.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use berth_types::{Digest, Fault, Hasher, Result, ResultExt};
use rustix::fs::{Advice, fadvise};

use crate::ContentStore;
use crate::ingest::{ABORTED, read_status};
use crate::store::{ALGORITHMS, hash};

impl ContentStore {
    /// Compares the blob named `digest`, as the disk has it, with its name and the `size` that is
    /// recorded. `None` when it is whole.
    pub fn check(&self, digest: &Digest, size: u64) -> Option<Fault> {
        compare(&self.blob(digest), digest, size).unwrap_or_else(|error| {
            Some(match error.kind() {
                ErrorKind::NotFound => Fault::Missing,
                _ => Fault::Unreadable(error.to_string()),
            })
        })
    }

    /// What is in the store's directories and is neither a blob nor an ingest, nor becomes one
    /// now.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn strays(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for path in entries(self.blobs())? {
            match ALGORITHMS.into_iter().find(|algorithm| path == self.blobs_of(*algorithm)) {
                Some(algorithm) => {
                    let blob = |path: &PathBuf| is_blob(algorithm.name(), path);
                    found.extend(entries(&path)?.into_iter().filter(|path| !blob(path)));
                }
                None => found.push(path),
            }
        }
        let ingests = entries(self.ingests())?;
        found.extend(ingests.into_iter().filter(|path| !self.is_ingest(path)));
        Ok(found)
    }

    /// Removes what [`strays`](Self::strays) names.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn remove_strays(&self) -> Result<()> {
        for path in self.strays()? {
            let removed = match path.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            removed.context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Whether a directory among the ingests is one, is about to be one, or is on its way out.
    fn is_ingest(&self, path: &Path) -> bool {
        let leaves = path.as_os_str().as_encoded_bytes().ends_with(ABORTED.as_bytes());
        // Asked in this order, the last answer counts for one that is just being made.
        let whole = |path| read_status(path).is_ok();
        let gone = |path: &Path| path.symlink_metadata().is_err();
        leaves || whole(path) || self.is_locked(path) || whole(path) || gone(path)
    }

    /// Whether an ingest's directory has a writer.
    fn is_locked(&self, path: &Path) -> bool {
        self.locks().locked().iter().any(|reference| self.ingest(reference) == path)
    }
}

/// # Errors
/// What keeps the file from being read.
fn compare(path: &Path, digest: &Digest, size: u64) -> io::Result<Option<Fault>> {
    let mut file = File::open(path)?;
    let found = file.metadata()?.len();
    if found == 0 && size > 0 {
        return Ok(Some(Fault::Empty));
    }
    if found != size {
        return Ok(Some(Fault::Size { found, expected: size }));
    }
    // The disk is asked, not what the kernel remembers of it. That it doesn't forget is no failure.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let mut hasher = Hasher::new(digest.algorithm());
    hash(&mut file, &mut hasher)?;
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    Ok((hasher.finish() != *digest).then_some(Fault::Differs))
}

fn is_blob(algorithm: &str, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_digest = format!("{algorithm}:{name}").parse::<Digest>().is_ok();
    is_digest && path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("list {}", directory.display());
    let entries = fs::read_dir(directory).context(what)?;
    entries.map(|entry| entry.map(|entry| entry.path()).context(what)).collect()
}
