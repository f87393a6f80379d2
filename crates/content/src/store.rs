//! Blobs: found, read, checked, deleted.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use berth_types::{Algorithm, Digest, Error, Hasher, Result, ResultExt};

use crate::lock::Locks;
use crate::{Remote, ingest};

/// What blobs are named by.
pub(crate) const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// A content store. Clones share it; two stores must not be open on one directory, because refs
/// are locked in memory.
#[derive(Clone)]
pub struct ContentStore(Arc<Shared>);

struct Shared {
    blobs: PathBuf,
    ingests: PathBuf,
    locks: Locks,
    remote: Option<Box<dyn Remote>>,
}

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was committed.
    pub created: SystemTime,
}

/// A blob that is open for reading. Deleting the blob does not disturb it.
#[derive(Debug)]
pub struct Reader {
    /// At the first byte.
    pub file: File,
    /// The length in bytes.
    pub size: u64,
}

impl ContentStore {
    /// Opens the store in the directory `content` of `root`, or makes one there, and removes half
    /// ingests that a crash left.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, None)
    }

    /// The same, with blobs that `remote` keeps.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open_with(root: &Path, remote: Option<Box<dyn Remote>>) -> Result<Self> {
        let content = root.join("content");
        let blobs = content.join("blobs");
        let ingests = content.join("ingest");
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        for algorithm in ALGORITHMS {
            let path = blobs.join(algorithm.name());
            private.create(&path).context(|| format!("create {}", path.display()))?;
        }
        private.create(&ingests).context(|| format!("create {}", ingests.display()))?;
        ingest::remove_halves(&ingests)?;
        Ok(Self(Arc::new(Shared { blobs, ingests, locks: Locks::default(), remote })))
    }

    /// The blob named `digest`.
    ///
    /// # Errors
    /// `NotFound`; those of the disk.
    pub fn info(&self, digest: &Digest) -> Result<Info> {
        match (fs::metadata(self.blob(digest)), self.remote()) {
            (Ok(metadata), _) => info(digest.clone(), &metadata),
            (Err(error), Some(remote)) if absent(&error) => remote.info(digest),
            (Err(error), _) => Err(unreadable(digest, &error)),
        }
    }

    /// Opens the blob named `digest`.
    ///
    /// # Errors
    /// `NotFound`; those of the disk.
    pub fn reader(&self, digest: &Digest) -> Result<Reader> {
        let failed = |error| unreadable(digest, &error);
        let file = match (File::open(self.blob(digest)), self.remote()) {
            (Err(error), Some(remote)) if absent(&error) => return self.fetch(remote, digest),
            (file, _) => file.map_err(failed)?,
        };
        let size = file.metadata().map_err(failed)?.len();
        Ok(Reader { file, size })
    }

    /// Calls `visit` for each blob, in no order, until it fails. Blobs that come or go meanwhile
    /// may be missed.
    ///
    /// # Errors
    /// Those of `visit` and of the disk.
    pub fn walk(&self, mut visit: impl FnMut(Info) -> Result<()>) -> Result<()> {
        for algorithm in ALGORITHMS {
            let directory = self.0.blobs.join(algorithm.name());
            let what = || format!("list {}", directory.display());
            for entry in fs::read_dir(&directory).context(what)? {
                let entry = entry.context(what)?;
                let text = format!("{}:{}", algorithm.name(), entry.file_name().display());
                let Ok(digest) = text.parse::<Digest>() else { continue };
                match entry.metadata() {
                    Ok(metadata) => visit(info(digest, &metadata)?)?,
                    Err(error) if absent(&error) => {}
                    Err(error) => return Err(unreadable(&digest, &error)),
                }
            }
        }
        match self.remote() {
            Some(remote) => remote.list()?.into_iter().try_for_each(visit),
            None => Ok(()),
        }
    }

    /// Removes the blob named `digest`; open readers keep it. The caller makes sure that nothing
    /// refers to it.
    ///
    /// # Errors
    /// `NotFound`; those of the disk.
    pub fn delete(&self, digest: &Digest) -> Result<()> {
        match (fs::remove_file(self.blob(digest)), self.remote()) {
            (Err(error), Some(remote)) if absent(&error) => remote.delete(digest),
            (removed, _) => removed.map_err(|error| unreadable(digest, &error)),
        }
    }

    /// Reads the blob named `digest` and compares what it is with what it is called.
    ///
    /// # Errors
    /// `DataLoss` when it differs; `NotFound`; those of the disk.
    pub fn verify(&self, digest: &Digest) -> Result<()> {
        let mut hasher = Hasher::new(digest.algorithm());
        hash(&mut self.reader(digest)?.file, &mut hasher)
            .context(|| format!("read content {digest}"))?;
        let found = hasher.finish();
        if found == *digest {
            return Ok(());
        }
        Err(Error::data_loss(format!(
            "content {digest} is damaged, its bytes are {found}: remove it and pull the image again"
        )))
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs_of(digest.algorithm()).join(digest.hex())
    }

    pub(crate) fn blobs_of(&self, algorithm: Algorithm) -> PathBuf {
        self.0.blobs.join(algorithm.name())
    }

    pub(crate) fn blobs(&self) -> &Path {
        &self.0.blobs
    }

    pub(crate) fn ingests(&self) -> &Path {
        &self.0.ingests
    }

    pub(crate) fn locks(&self) -> &Locks {
        &self.0.locks
    }

    pub(crate) fn remote(&self) -> Option<&dyn Remote> {
        self.0.remote.as_deref()
    }
}

/// Feeds the rest of `file` to `hasher`; returns how many bytes that were.
pub(crate) fn hash(file: &mut File, hasher: &mut Hasher) -> std::io::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(total),
            read => {
                hasher.update(&buffer[..read]);
                total += read as u64;
            }
        }
    }
}

fn info(digest: Digest, metadata: &fs::Metadata) -> Result<Info> {
    let created = metadata.modified().context(|| format!("content {digest}"))?;
    Ok(Info { digest, size: metadata.len(), created })
}

fn absent(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

fn unreadable(digest: &Digest, error: &std::io::Error) -> Error {
    if absent(error) {
        return Error::not_found(format!("content {digest}: not found"));
    }
    Error::io(format!("content {digest}"), error)
}
