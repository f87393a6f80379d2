//! Ingests: what is being written, listed and aborted.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use berth_types::{Digest, Error, Result, ResultExt};

use crate::ContentStore;

/// Ends the names of directories that only wait to be removed.
pub(crate) const ABORTED: &str = ".aborted";

/// How far an ingest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub reference: String,
    /// How many bytes it has.
    pub offset: u64,
    /// How many it should have in the end; 0 when that is unknown.
    pub total: u64,
    /// When it was begun.
    pub started: SystemTime,
    /// When it last grew.
    pub updated: SystemTime,
}

impl ContentStore {
    /// How far the ingest `reference` is, whether it has a writer or not.
    ///
    /// # Errors
    /// `NotFound`; those of the disk.
    pub fn status(&self, reference: &str) -> Result<Status> {
        read_status(&self.ingest(reference)).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::InvalidData => {
                Error::not_found(format!("ingest {reference}: not found"))
            }
            _ => Error::io(format!("ingest {reference}"), &error),
        })
    }

    /// All ingests for which `filter` holds, in no order. Those that come or go meanwhile may be
    /// missed.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn statuses(&self, filter: impl Fn(&Status) -> bool) -> Result<Vec<Status>> {
        let what = || format!("list {}", self.ingests().display());
        let mut found = Vec::new();
        for entry in fs::read_dir(self.ingests()).context(what)? {
            match read_status(&entry.context(what)?.path()) {
                Ok(status) if filter(&status) => found.push(status),
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {}
                Err(error) => return Err(Error::io(what(), &error)),
            }
        }
        Ok(found)
    }

    /// Drops the ingest `reference` and its bytes. A live writer of it fails at its commit.
    ///
    /// # Errors
    /// `NotFound`; those of the disk.
    pub fn abort(&self, reference: &str) -> Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = self.ingest(reference);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let aborted = path.with_extension(format!("{}.{unique}{ABORTED}", std::process::id()));
        // Renamed first, so that the ref is free at once and a crash leaves no half ingest. A full
        // disk may have no room for another name.
        let removed = match fs::rename(&path, &aborted) {
            Err(error) if error.kind() == ErrorKind::StorageFull => fs::remove_dir_all(&path),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::not_found(format!("ingest {reference}: not found")));
            }
            renamed => renamed.and_then(|()| fs::remove_dir_all(&aborted)),
        };
        removed.context(|| format!("abort ingest {reference}"))
    }

    /// The directory of an ingest. Its name has a fixed length, however long the ref is.
    pub(crate) fn ingest(&self, reference: &str) -> PathBuf {
        self.ingests().join(Digest::of(reference.as_bytes()).hex())
    }
}

/// Removes what a crash left: what [`ContentStore::abort`] had renamed, and ingests that were just
/// being made. For the start, before there are writers.
pub(crate) fn remove_halves(ingests: &Path) -> Result<()> {
    let what = || format!("clean {}", ingests.display());
    for entry in fs::read_dir(ingests).context(what)? {
        let path = entry.context(what)?.path();
        let aborted = path.as_os_str().as_encoded_bytes().ends_with(ABORTED.as_bytes());
        if path.is_dir() && (aborted || is_half(&path)) {
            fs::remove_dir_all(path).context(what)?;
        }
    }
    Ok(())
}

/// Whether it is an ingest's directory and not yet an ingest.
fn is_half(path: &Path) -> bool {
    let half = [ErrorKind::NotFound, ErrorKind::InvalidData];
    read_status(path).is_err_and(|error| half.contains(&error.kind()))
}

/// Reads an ingest's directory.
///
/// # Errors
/// `NotFound` or `InvalidData` when a crash, or a concurrent end, left no whole ingest there.
pub(crate) fn read_status(path: &Path) -> io::Result<Status> {
    let about = path.join("about");
    let data = fs::metadata(path.join("data"))?;
    let text = fs::read_to_string(&about)?;
    let (total, reference) = text.split_once('\n').ok_or(ErrorKind::InvalidData)?;
    Ok(Status {
        reference: reference.to_owned(),
        offset: data.len(),
        total: total.parse().map_err(|_| ErrorKind::InvalidData)?,
        started: fs::metadata(&about)?.modified()?,
        updated: data.modified()?,
    })
}
