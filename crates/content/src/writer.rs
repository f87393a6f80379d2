//! Writers: begun or resumed, filled, committed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_types::{Algorithm, Digest, Error, Hasher, Kind, Result, ResultExt};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::ingest::read_status;
use crate::lock::Lock;
use crate::store::hash;
use crate::{ContentStore, Remote, Status};

/// The only writer of an ingest. Dropped without a commit it leaves the ingest to be resumed.
pub struct Writer {
    store: ContentStore,
    file: File,
    directory: PathBuf,
    hasher: Hasher,
    algorithm: Algorithm,
    status: Status,
    _lock: Lock,
}

impl ContentStore {
    /// Begins the ingest `reference`, or resumes it at the end of what it has, which is read to
    /// be hashed again. `total` is the size it should have in the end, or 0. Bytes are hashed as
    /// `expected` is, by default with SHA-256.
    ///
    /// # Errors
    /// - `AlreadyExists`: there is a blob named `expected`.
    /// - `Unavailable`: the ref is locked by another writer.
    /// - `InvalidArgument`: the ref is empty.
    /// - Those of the disk.
    pub fn writer(&self, reference: &str, total: u64, expected: Option<&Digest>) -> Result<Writer> {
        if reference.is_empty() {
            return Err(Error::invalid_argument("ref must not be empty"));
        }
        let lock = self.locks().lock(reference)?;
        if let Some(digest) = expected {
            match self.info(digest) {
                Ok(_) => return Err(exists(digest)),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        self.open_writer(reference, total, algorithm, lock)
    }

    /// The same for bytes that are to take the place of the blob `digest`, whether that is there or
    /// not: see [`Writer::replace`].
    ///
    /// # Errors
    /// As for [`writer`](Self::writer), without `AlreadyExists`.
    pub fn replacement(&self, reference: &str, total: u64, digest: &Digest) -> Result<Writer> {
        let lock = self.locks().lock(reference)?;
        self.open_writer(reference, total, digest.algorithm(), lock)
    }

    fn open_writer(
        &self,
        reference: &str,
        total: u64,
        algorithm: Algorithm,
        lock: Lock,
    ) -> Result<Writer> {
        let directory = self.ingest(reference);
        let what = || format!("open ingest {reference}");
        let (file, hasher, status) = match resume(&directory, reference, total, algorithm) {
            Ok(resumed) => resumed,
            // Nothing there, or the remains of a crash.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
                let (file, status) = begin(&directory, reference, total).context(what)?;
                (file, Hasher::new(algorithm), status)
            }
            Err(error) => return Err(Error::io(what(), &error)),
        };
        let store = self.clone();
        Ok(Writer { store, file, directory, hasher, algorithm, status, _lock: lock })
    }
}

impl Writer {
    /// How far it is.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// How many bytes it has.
    pub fn offset(&self) -> u64 {
        self.status.offset
    }

    /// The digest of the bytes so far.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Appends all of `bytes`, or nothing.
    ///
    /// # Errors
    /// `ResourceExhausted` when the disk is full, and others of the disk. Abort the ingest to
    /// give back the space that it has.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all_at(bytes, self.status.offset) {
            // What was written beyond the offset was not hashed.
            self.file.set_len(self.status.offset).context(|| self.what("shorten"))?;
            return Err(Error::io(self.what("write"), &error));
        }
        self.hasher.update(bytes);
        self.status.offset += bytes.len() as u64;
        self.status.updated = SystemTime::now();
        Ok(())
    }

    /// Cuts the ingest down to its first `size` bytes, which are read to be hashed again.
    ///
    /// # Errors
    /// `OutOfRange` when it has fewer; those of the disk.
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        if size > self.status.offset {
            return Err(Error::out_of_range(format!(
                "ingest {} has {} bytes, it can't be truncated to {size}",
                self.status.reference, self.status.offset
            )));
        }
        let mut hasher = Hasher::new(self.algorithm);
        self.file.set_len(size).context(|| self.what("truncate"))?;
        if size > 0 {
            let data = File::open(self.directory.join("data"));
            data.and_then(|mut data| hash(&mut data, &mut hasher)).context(|| self.what("read"))?;
        }
        self.hasher = hasher;
        self.status.offset = size;
        self.status.updated = SystemTime::now();
        Ok(())
    }

    /// Puts what it has on the disk, which makes a commit that follows short.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().context(|| self.what("sync"))
    }

    /// Makes a blob of it: on the disk first, then under its name, then the name on the disk; or
    /// in the remote.
    /// `size` 0 and no `expected` are not checked.
    ///
    /// # Errors
    /// - `FailedPrecondition`: size or digest differ. The ingest stays: it can be committed under
    ///   its true digest, or aborted.
    /// - `AlreadyExists`: there is such a blob; the ingest is gone.
    /// - `Aborted`: the ingest was aborted meanwhile.
    /// - Those of the disk.
    pub fn commit(self, size: u64, expected: Option<&Digest>) -> Result<Digest> {
        let digest = self.check(size, expected)?;
        let named = match self.store.remote() {
            None => self.finish().and_then(|()| self.name(&digest, RenameFlags::NOREPLACE)),
            Some(remote) => self.hand_over(remote, &digest),
        };
        if named.as_ref().is_ok_and(|named| !named) {
            self.remove();
            return Err(exists(&digest));
        }
        named?;
        self.remove();
        Ok(digest)
    }

    /// Puts it in the place of the blob `expected`, which is damaged or gone. Whoever reads that one
    /// goes on doing so.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit), without `AlreadyExists`.
    pub fn replace(self, size: u64, expected: &Digest) -> Result<()> {
        let digest = self.check(size, Some(expected))?;
        self.finish()?;
        self.name(&digest, RenameFlags::empty())?;
        self.remove();
        Ok(())
    }

    /// Makes the file what a blob's is.
    fn finish(&self) -> Result<()> {
        self.sync()?;
        let readable = Permissions::from_mode(0o444);
        self.file.set_permissions(readable).context(|| self.what("protect"))
    }

    fn check(&self, size: u64, expected: Option<&Digest>) -> Result<Digest> {
        let Status { reference, offset, .. } = &self.status;
        if size > 0 && size != *offset {
            return Err(Error::failed_precondition(format!(
                "ingest {reference}: unexpected commit size {offset}, expected {size}"
            )));
        }
        let digest = self.digest();
        match expected {
            Some(expected) if *expected != digest => Err(Error::failed_precondition(format!(
                "ingest {reference}: unexpected commit digest {digest}, expected {expected}"
            ))),
            _ => Ok(digest),
        }
    }

    /// Lets a remote keep the data; false when it has it already.
    fn hand_over(&self, remote: &dyn Remote, digest: &Digest) -> Result<bool> {
        match remote.keep(digest, self.status.offset, &self.file) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == Kind::AlreadyExists => Ok(false),
            Err(error) => Err(error.context(self.what("commit"))),
        }
    }

    /// Gives the data its name as a blob; false when the name is taken.
    fn name(&self, digest: &Digest, flags: RenameFlags) -> Result<bool> {
        let blobs = self.store.blobs_of(digest.algorithm());
        let (from, to) = (self.directory.join("data"), blobs.join(digest.hex()));
        match renameat_with(CWD, &from, CWD, &to, flags).map_err(io::Error::from) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let reference = &self.status.reference;
                return Err(Error::aborted(format!("ingest {reference} was aborted meanwhile")));
            }
            Err(error) => return Err(Error::io(self.what("commit"), &error)),
        }
        let synced = File::open(&blobs).and_then(|directory| directory.sync_all());
        synced.context(|| format!("sync {}", blobs.display()))?;
        Ok(true)
    }

    /// Removes the ingest after its end. A failure costs a little space until it is aborted.
    fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!(path = %self.directory.display(), %error, "an ingest was left behind");
        }
    }

    fn what(&self, verb: &str) -> String {
        format!("{verb} ingest {}", self.status.reference)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The kernel's own stamp is up to a tick older. That matters to nobody but a status, so
        // neither does a failure.
        let _ = self.file.set_modified(self.status.updated);
    }
}

fn exists(digest: &Digest) -> Error {
    Error::already_exists(format!("content {digest}: already exists"))
}

/// Opens an ingest that is there.
///
/// # Errors
/// `NotFound` or `InvalidData` when there is none that fits.
fn resume(
    directory: &Path,
    reference: &str,
    total: u64,
    algorithm: Algorithm,
) -> io::Result<(File, Hasher, Status)> {
    let mut status = read_status(directory)?;
    let other_size = total > 0 && status.total > 0 && status.total != total;
    if status.reference != reference || other_size {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut file = OpenOptions::new().read(true).write(true).open(directory.join("data"))?;
    let mut hasher = Hasher::new(algorithm);
    status.offset = hash(&mut file, &mut hasher)?;
    Ok((file, hasher, status))
}

/// Makes a new ingest, in place of whatever is there, or nothing.
fn begin(directory: &Path, reference: &str, total: u64) -> io::Result<(File, Status)> {
    let begun = try_begin(directory, reference, total);
    if begun.is_err() {
        // Half an ingest is found by nobody. One that can't be removed is a stray.
        let _ = fs::remove_dir_all(directory);
    }
    begun
}

fn try_begin(directory: &Path, reference: &str, total: u64) -> io::Result<(File, Status)> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let now = SystemTime::now();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let data = options.open(directory.join("data"))?;
    let mut about = options.open(directory.join("about"))?;
    about.write_all(format!("{total}\n{reference}").as_bytes())?;
    about.set_modified(now)?;
    let reference = reference.to_owned();
    Ok((data, Status { reference, offset: 0, total, started: now, updated: now }))
}
