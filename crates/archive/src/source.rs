//! The uncompressed stream of a layer: hashed, counted and limited as it is read.

use std::io::Read;

use berth_types::{Algorithm, Digest, Error, Hasher, Result};

use crate::compression::read_error;

/// The unit of a tar archive, in bytes.
pub(crate) const BLOCK: usize = 512;

/// How much is decompressed and hashed at once, in bytes: it stays in the second-level cache.
const BUFFER_SIZE: usize = 256 << 10;

/// A reader that hands out slices of its own buffer, so that a file's data is copied once, by the
/// kernel.
pub(crate) struct Source<R> {
    reader: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    hasher: Hasher,
    total: u64,
    limit: u64,
    /// What was gone past but not taken as a chunk, for who wants it.
    passed: Option<Vec<u8>>,
}

impl<R: Read> Source<R> {
    /// Reads at most `limit` bytes from `reader`; a longer stream is refused.
    pub(crate) fn new(reader: R, limit: u64) -> Self {
        Self {
            reader,
            buffer: vec![0; BUFFER_SIZE].into_boxed_slice(),
            start: 0,
            end: 0,
            hasher: Hasher::new(Algorithm::Sha256),
            total: 0,
            limit,
            passed: None,
        }
    }

    /// Notes from now on what is read as blocks and bytes or skipped.
    pub(crate) fn note_passed(&mut self) {
        self.passed = Some(Vec::new());
    }

    /// What was noted since the last call.
    pub(crate) fn take_passed(&mut self) -> Vec<u8> {
        self.passed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The next bytes, at most `max`; none at the end of the stream.
    pub(crate) fn chunk(&mut self, max: u64) -> Result<&[u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.read()?;
        }
        let length = usize::try_from(max)
            .map_or(self.end - self.start, |max| max.min(self.end - self.start));
        Ok(&self.buffer[self.start..self.start + length])
    }

    /// Goes past `count` bytes of the last chunk.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// The next whole block; `None` at the end of the stream.
    pub(crate) fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        if self.end - self.start < BLOCK {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            while self.end < BLOCK && self.read()? {}
        }
        match self.buffer[self.start..self.end].first_chunk::<BLOCK>() {
            Some(block) => {
                let block = *block;
                self.start += BLOCK;
                note(&mut self.passed, &block);
                Ok(Some(block))
            }
            None if self.start == self.end => Ok(None),
            None => Err(truncated()),
        }
    }

    /// The next `length` bytes in memory. The caller bounds `length`.
    pub(crate) fn bytes(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let chunk = self.chunk((length - bytes.len()) as u64)?;
            if chunk.is_empty() {
                return Err(truncated());
            }
            bytes.extend_from_slice(chunk);
            let count = chunk.len();
            self.consume(count);
        }
        note(&mut self.passed, &bytes);
        Ok(bytes)
    }

    /// Goes past `count` bytes.
    pub(crate) fn skip(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let skipped = self.chunk(count)?.len();
            if skipped == 0 {
                return Err(truncated());
            }
            note(&mut self.passed, &self.buffer[self.start..self.start + skipped]);
            self.consume(skipped);
            count -= skipped as u64;
        }
        Ok(())
    }

    /// Reads to the end of the stream, handing what is left of it to `rest`; the digest and the
    /// number of all its bytes.
    pub(crate) fn finish(
        mut self,
        mut rest: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<(Digest, u64)> {
        loop {
            if self.start < self.end {
                rest(&self.buffer[self.start..self.end])?;
            }
            self.start = 0;
            self.end = 0;
            if !self.read()? {
                return Ok((self.hasher.finish(), self.total));
            }
        }
    }

    /// Reads once behind what is buffered. False at the end of the stream.
    fn read(&mut self) -> Result<bool> {
        let count = loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.map_err(read_error)?,
            }
        };
        self.hasher.update(&self.buffer[self.end..self.end + count]);
        self.end += count;
        self.total += count as u64;
        if self.total > self.limit {
            return Err(Error::resource_exhausted(format!(
                "the layer holds more than {} bytes, the limit",
                self.limit
            )));
        }
        Ok(count > 0)
    }
}

fn note(passed: &mut Option<Vec<u8>>, bytes: &[u8]) {
    if let Some(passed) = passed {
        passed.extend_from_slice(bytes);
    }
}

/// The stream ended within a member.
pub(crate) fn truncated() -> Error {
    Error::data_loss("the layer's archive is cut short; fetch it again")
}
