//! Blobs that another process keeps.

use std::fs::File;
use std::io::{Seek, Write};

use berth_types::{Digest, Error, Hasher, Result, ResultExt};

use crate::{ContentStore, Info, Reader};

/// A store of another process, which keeps the blobs of a [`ContentStore`] instead of its
/// directory. It is not trusted: what it gives is checked against the digest. All calls block.
pub trait Remote: Send + Sync {
    /// The blob named `digest`.
    ///
    /// # Errors
    /// `NotFound`; those of the other process.
    fn info(&self, digest: &Digest) -> Result<Info>;

    /// All blobs, in no order.
    ///
    /// # Errors
    /// Those of the other process.
    fn list(&self) -> Result<Vec<Info>>;

    /// Writes the whole blob named `digest` to `to`.
    ///
    /// # Errors
    /// `NotFound`; those of the other process and of `to`.
    fn fetch(&self, digest: &Digest, to: &mut dyn Write) -> Result<()>;

    /// Keeps the first `size` bytes of `file` as the blob named `digest`, until it is deleted.
    ///
    /// # Errors
    /// `AlreadyExists`; those of the other process.
    fn keep(&self, digest: &Digest, size: u64, file: &File) -> Result<()>;

    /// Removes the blob named `digest`.
    ///
    /// # Errors
    /// `NotFound`; those of the other process.
    fn delete(&self, digest: &Digest) -> Result<()>;
}

impl ContentStore {
    /// Fetches a blob into a file without a name, checked.
    pub(crate) fn fetch(&self, remote: &dyn Remote, digest: &Digest) -> Result<Reader> {
        let what = || format!("fetch content {digest}");
        let file = tempfile::tempfile_in(self.ingests()).context(what)?;
        let mut hashed = Hashed { file, hasher: Hasher::new(digest.algorithm()), size: 0 };
        remote.fetch(digest, &mut hashed)?;
        let Hashed { mut file, hasher, size } = hashed;
        let found = hasher.finish();
        if found != *digest {
            return Err(Error::data_loss(format!(
                "content {digest}: the content service sent other bytes, which are {found}"
            )));
        }
        file.rewind().context(what)?;
        Ok(Reader { file, size })
    }
}

/// A file that knows the digest of what is written to it.
struct Hashed {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
