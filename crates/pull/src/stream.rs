//! A layer's bytes on their way: from the registry into its ingest and, in the same pass, through
//! decompression into a directory.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use berth_archive::{Applied, Decompress, Options, Whiteouts, apply};
use berth_metadata::ContentWriter;
use berth_types::{Error, Kind, Result};
use bytes::{Buf, Bytes};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

/// What became of a layer.
pub(crate) enum Outcome {
    /// Its directory holds all of it.
    Applied(Applied),
    /// It links to files that are not in it, as the error says: it can only be made on top of its
    /// lower layers.
    NeedsLower(Error),
}

/// Applies an archive, perhaps compressed, to the directory `root`.
pub(crate) fn unpack(archive: impl Read, root: &OwnedFd, whiteouts: Whiteouts) -> Result<Outcome> {
    let options = Options { whiteouts, ..Options::default() };
    match Decompress::new(archive).and_then(|tar| apply(tar, root.as_fd(), &options)) {
        Ok(applied) => Ok(Outcome::Applied(applied)),
        // The one thing that `apply` reports by this kind.
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

    /// Applies the blob to the empty directory `root` while storing it.
    pub(crate) fn unpack(mut self, root: &OwnedFd) -> Result<(ContentWriter, Outcome)> {
        let outcome = unpack(&mut self, root, Whiteouts::Overlay)?;
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
