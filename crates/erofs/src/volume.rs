//! The image file: appended to through a buffer, corrected in place.

use std::fs::File;
use std::os::unix::fs::FileExt;

use berth_types::{Error, Result, ResultExt};

use crate::format::{BLOCK, HOLE};

/// How much is written at once, in bytes.
const BUFFER: usize = 1 << 20;

/// A gap of more than this is left out of the file rather than filled with zeros.
const GAP: u64 = 64 << 10;

/// The most bytes that an image can have: addresses of blocks have 32 bits.
const MAX_SIZE: u64 = HOLE as u64 * BLOCK as u64;

/// An image being written.
pub(crate) struct Volume {
    file: File,
    /// The offset of the buffer.
    base: u64,
    buffer: Vec<u8>,
}

impl Volume {
    /// Writes to `file`, which is empty. The first block is left for the end.
    pub(crate) fn new(file: File) -> Self {
        Self { file, base: BLOCK as u64, buffer: Vec::with_capacity(BUFFER) }
    }

    /// The end of what was written so far.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// The address of the block that would be written next. Only where the end is that of a block.
    pub(crate) fn next_block(&self) -> u32 {
        (self.end() / BLOCK as u64) as u32
    }

    /// Writes `bytes` at the end.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.check(bytes.len() as u64)?;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Moves the end to `offset`; what lies between reads as zeros.
    pub(crate) fn extend_to(&mut self, offset: u64) -> Result<()> {
        let mut gap = offset.saturating_sub(self.end());
        self.check(gap)?;
        if gap > GAP {
            self.flush()?;
            self.base = offset;
            return Ok(());
        }
        while gap > 0 {
            let now = gap.min((BUFFER - self.buffer.len()) as u64);
            self.buffer.resize(self.buffer.len() + now as usize, 0);
            gap -= now;
            if self.buffer.len() == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Moves the end to the next boundary of blocks.
    pub(crate) fn align(&mut self) -> Result<()> {
        self.extend_to(self.end().next_multiple_of(BLOCK as u64))
    }

    /// Writes `bytes` at `offset`, which is not behind the end.
    pub(crate) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let before = usize::try_from(self.base.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (before, buffered) = bytes.split_at(before.min(bytes.len()));
        if !before.is_empty() {
            self.file.write_all_at(before, offset).context(writing)?;
        }
        if !buffered.is_empty() {
            let start = (offset.max(self.base) - self.base) as usize;
            self.buffer[start..start + buffered.len()].copy_from_slice(buffered);
        }
        Ok(())
    }

    /// Reads what was written at `offset`.
    pub(crate) fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        if offset >= self.base {
            let start = (offset - self.base) as usize;
            bytes.copy_from_slice(&self.buffer[start..start + bytes.len()]);
            return Ok(());
        }
        if offset + bytes.len() as u64 > self.base {
            self.flush()?;
        }
        self.file.read_exact_at(bytes, offset).context(|| "read the layer's image")
    }

    /// Puts what left the buffer on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().context(writing)
    }

    /// Writes the first block behind all others, and gives the file back.
    pub(crate) fn complete(mut self, first: &[u8; BLOCK]) -> Result<File> {
        self.flush()?;
        // What lies behind the last data was perhaps only passed over.
        self.file.set_len(self.base).context(writing)?;
        self.file.write_all_at(first, 0).context(writing)?;
        Ok(self.file)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all_at(&self.buffer, self.base).context(writing)?;
        self.base += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn check(&self, more: u64) -> Result<()> {
        match self.end().checked_add(more) {
            Some(end) if end <= MAX_SIZE => Ok(()),
            _ => {
                Err(Error::resource_exhausted("the layer is too large for one image, over 16 TiB"))
            }
        }
    }
}

fn writing() -> &'static str {
    "write the layer's image"
}
