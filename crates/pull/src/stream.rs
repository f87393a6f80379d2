//! A layer's bytes on their way: from the registry into its ingest and, in the same pass, through
//! decompression into a directory or an image.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use berth_archive::{Applied, Decompress, Limits, Options, Whiteouts, apply};
use berth_erofs::Draft;
use berth_metadata::ContentWriter;
use berth_types::{Digest, Error, Kind, Result, ResultExt};
use bytes::{Buf, Bytes};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

/// What a layer is written to.
pub(crate) enum Target {
    /// A directory.
    Directory(OwnedFd, Whiteouts),
    /// A file that is to be its image.
    Image(File),
}

impl Target {
    /// The empty directory at `path`.
    pub(crate) fn directory(path: &Path) -> Result<Self> {
        let directory = File::open(path).context(|| format!("open {}", path.display()))?;
        Ok(Self::Directory(directory.into(), Whiteouts::Overlay))
    }

    /// A new image at `path`.
    pub(crate) fn image(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(path).context(|| format!("make {}", path.display()))?;
        Ok(Self::Image(file))
    }
}

/// What was made of a layer.
pub(crate) enum Made {
    /// A directory holds all of it.
    Files(Applied),
    /// An image has all but its directories.
    Image(Box<Draft>),
}

impl Made {
    /// The digest of the layer without compression.
    pub(crate) fn diff_id(&self) -> &Digest {
        match self {
            Self::Files(applied) => &applied.diff_id,
            Self::Image(draft) => draft.diff_id(),
        }
    }
}

/// What became of a layer.
pub(crate) enum Outcome {
    /// All of it is there.
    Made(Made),
    /// It links to files that are not in it, as the error says: it can only be made on top of its
    /// lower layers.
    NeedsLower(Error),
}

/// Writes an archive, perhaps compressed, to `target`.
pub(crate) fn unpack(archive: impl Read, target: Target) -> Result<Outcome> {
    let tar = Decompress::new(archive)?;
    let made = match target {
        Target::Directory(root, whiteouts) => {
            let options = Options { whiteouts, ..Options::default() };
            apply(tar, root.as_fd(), &options).map(Made::Files)
        }
        // The last sync finds little left to write, and the disk was busy while others unpacked.
        Target::Image(file) => berth_erofs::write_restorable(tar, file, Limits::default())
            .and_then(|draft| draft.sync().map(|()| Made::Image(Box::new(draft)))),
    };
    match made {
        Ok(made) => Ok(Outcome::Made(made)),
        // The one thing that either reports by this kind.
        Err(error) if error.kind() == Kind::FailedPrecondition => Ok(Outcome::NeedsLower(error)),
        Err(error) => Err(error),
    }
}

/// A reader that fails once it is told to stop.
pub(crate) struct Stoppable<R> {
    pub(crate) inner: R,
    pub(crate) stop: CancellationToken,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other(stopped()));
        }
        self.inner.read(buffer)
    }
}

/// The failure of a layer that was stopped, for a reason that is told elsewhere.
pub(crate) fn stopped() -> Error {
    Error::cancelled("stopped")
}

/// Bytes that arrive by a channel, stored as they are read.
pub(crate) struct Tee {
    arriving: Receiver<Bytes>,
    writer: ContentWriter,
    size: u64,
    offset: u64,
    unread: Bytes,
}

impl Tee {
    /// Reads the rest of a blob of `size` bytes from `arriving` and appends it to `writer`.
    pub(crate) fn new(arriving: Receiver<Bytes>, writer: ContentWriter, size: u64) -> Self {
        let offset = writer.status().offset;
        Self { arriving, writer, size, offset, unread: Bytes::new() }
    }

    /// Writes the blob to `target` while storing it.
    pub(crate) fn unpack(mut self, target: Target) -> Result<(ContentWriter, Outcome)> {
        let outcome = unpack(&mut self, target)?;
        Ok((self.store()?, outcome))
    }

    /// Stores what is still to come.
    pub(crate) fn store(mut self) -> Result<ContentWriter> {
        while self.fill().map_err(own_error)? {
            self.unread.clear();
        }
        Ok(self.writer)
    }

    /// Waits for bytes; false at the end of the blob.
    fn fill(&mut self) -> io::Result<bool> {
        if self.offset == self.size {
            return Ok(false);
        }
        // Whoever closes the channel early knows why, and says so.
        let bytes = self.arriving.blocking_recv().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.writer.write(&bytes).map_err(io::Error::other)?;
        self.offset += bytes.len() as u64;
        self.unread = bytes;
        Ok(true)
    }
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() {
            if !self.fill()? {
                return Ok(0);
            }
        }
        let count = self.unread.len().min(buffer.len());
        self.unread.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// The error that an [`io::Error`] carries.
fn own_error(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::data_loss(format!("the layer's bytes ended early: {error}")),
    }
}
