//! The recipe of a layer's archive: what its image lacks of it, and where the image has the rest.
//!
//! A recipe is a list of steps, in the order of the archive. Numbers are in LEB128:
//! ```text
//! 0                                the archive ends
//! 2 × LENGTH, bytes                these bytes
//! 2 × LENGTH + 1, DISTANCE         bytes of the image, that far from where the last such ended
//!                                  (zigzag: 0, -1, 1, -2, …; at first from the image's begin)
//! ```
//! What is not the data of a file is in the recipe: headers with whatever their writer put there,
//! padding, the data of whiteouts, all that follows the last member. The data of files never is,
//! not even of those that later members replace: the image has it all the same.
//!
//! The list is one zstd frame. It is compressed as it grows, and cut in pieces that lie in the image
//! between the data of files, so that neither memory nor a second file has to hold it until the
//! end. Behind all of them is the index, the addresses of their blocks with 32 bits each. What leads
//! to that stands before the superblock, where the kernel doesn't look:
//! ```text
//! 0   "berthtar"
//! 8   version, 1                            32 bits each
//! 12  CRC-32C of these 72 bytes, with zeros here
//! 16  address of the index
//! 20  how many pieces it has
//! 24  length of the frame                   64 bits each
//! 32  length of the archive
//! 40  SHA-256 of the archive                32 bytes
//! ```

use std::io::Write;

use berth_types::{Digest, Error, Result, ResultExt};
use zstd::stream::write::Encoder;

use crate::checksum::crc32c;
use crate::format::BLOCK;
use crate::volume::Volume;

/// The size of every piece but the last.
pub(crate) const PIECE: usize = 64 << 10;

/// What the record before the superblock takes.
pub(crate) const LOCATOR: usize = 72;

/// How far back zstd looks for what repeats, as a power of two: further takes more memory than it
/// saves.
pub(crate) const WINDOW_LOG: u32 = 20;

/// Headers compress to a tenth at any level, and a higher one takes longer than to unpack them.
const LEVEL: i32 = 1;

const MAGIC: &[u8; 8] = b"berthtar";
const VERSION: u32 = 1;

/// A recipe being written.
pub(crate) struct Recipe {
    frame: Encoder<'static, Vec<u8>>,
    /// The step of the image's bytes that may still grow.
    copied: (u64, u64),
    /// Where the last such step ended.
    end: u64,
    pieces: Vec<u32>,
    length: u64,
}

impl Recipe {
    /// A recipe without steps.
    pub(crate) fn new() -> Result<Self> {
        let begin = || {
            let mut frame = Encoder::new(Vec::with_capacity(2 * PIECE), LEVEL)?;
            frame.window_log(WINDOW_LOG)?;
            frame.include_checksum(true)?;
            Ok::<_, std::io::Error>(frame)
        };
        let frame = begin().context(compressing)?;
        Ok(Self { frame, copied: (0, 0), end: 0, pieces: Vec::new(), length: 0 })
    }

    /// `bytes` come next in the archive.
    pub(crate) fn literal(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.end_copy()?;
        self.number(2 * bytes.len() as u64)?;
        self.frame.write_all(bytes).context(compressing)
    }

    /// `length` bytes come next that the image has at `offset`.
    pub(crate) fn copy(&mut self, offset: u64, length: u64) -> Result<()> {
        let (start, known) = self.copied;
        if known > 0 && start + known == offset {
            self.copied.1 += length;
            return Ok(());
        }
        self.end_copy()?;
        self.copied = (offset, length);
        Ok(())
    }

    /// Puts the pieces that are complete into the image, whose end is that of a block.
    pub(crate) fn spill(&mut self, volume: &mut Volume) -> Result<()> {
        while self.frame.get_ref().len() >= PIECE {
            self.put(volume, PIECE)?;
        }
        Ok(())
    }

    /// Puts the rest and the index into the image.
    pub(crate) fn finish(mut self, volume: &mut Volume) -> Result<Locator> {
        self.end_copy()?;
        self.number(0)?;
        self.frame.do_finish().context(compressing)?;
        self.spill(volume)?;
        self.put(volume, self.frame.get_ref().len())?;
        let index = volume.next_block();
        for address in &self.pieces {
            volume.append(&address.to_le_bytes())?;
        }
        volume.align()?;
        let pieces = u32::try_from(self.pieces.len())
            .map_err(|_| Error::resource_exhausted("the layer's headers are too long"))?;
        Ok(Locator { index, pieces, length: self.length })
    }

    /// Puts the first `length` compressed bytes into the image.
    fn put(&mut self, volume: &mut Volume, length: usize) -> Result<()> {
        if length > 0 {
            debug_assert_eq!(volume.end() % BLOCK as u64, 0);
            self.pieces.push(volume.next_block());
            self.length += length as u64;
            volume.append(&self.frame.get_ref()[..length])?;
            volume.align()?;
            self.frame.get_mut().drain(..length);
        }
        Ok(())
    }

    fn end_copy(&mut self) -> Result<()> {
        let (offset, length) = std::mem::take(&mut self.copied);
        if length > 0 {
            self.number(2 * length + 1)?;
            self.number(zigzag(offset.wrapping_sub(self.end).cast_signed()))?;
            self.end = offset + length;
        }
        Ok(())
    }

    fn number(&mut self, mut number: u64) -> Result<()> {
        let (mut encoded, mut length) = ([0; 10], 0);
        loop {
            let more = number >> 7 > 0;
            encoded[length] = (number & 0x7f) as u8 | if more { 0x80 } else { 0 };
            length += 1;
            number >>= 7;
            if !more {
                return self.frame.write_all(&encoded[..length]).context(compressing);
            }
        }
    }
}

/// Where a recipe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locator {
    pub(crate) index: u32,
    pub(crate) pieces: u32,
    pub(crate) length: u64,
}

/// What a recipe makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) size: u64,
    pub(crate) diff_id: Digest,
}

impl Locator {
    /// The record before the superblock.
    pub(crate) fn encode(&self, made: &Made) -> Result<[u8; LOCATOR]> {
        let mut record = [0; LOCATOR];
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(16, &self.index.to_le_bytes());
        put(20, &self.pieces.to_le_bytes());
        put(24, &self.length.to_le_bytes());
        put(32, &made.size.to_le_bytes());
        put(40, &from_hex(made.diff_id.hex())?);
        let sum = crc32c(&record);
        record[12..16].copy_from_slice(&sum.to_le_bytes());
        Ok(record)
    }

    /// Reads the record; `None` where there is none.
    ///
    /// # Errors
    /// DataLoss when it is damaged, Unimplemented when a later release wrote it.
    pub(crate) fn decode(record: &[u8; LOCATOR]) -> Result<Option<(Self, Made)>> {
        if !record.starts_with(MAGIC) {
            return Ok(None);
        }
        let short = |at: usize| {
            u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
        };
        let long = |at: usize| u64::from(short(at)) | u64::from(short(at + 4)) << 32;
        let mut summed = *record;
        summed[12..16].fill(0);
        if short(12) != crc32c(&summed) {
            return Err(Error::data_loss("the begin of the layer's image is damaged"));
        }
        if short(8) != VERSION {
            return Err(Error::unimplemented(format!(
                "the layer's image has a recipe of version {}, which a later release wrote",
                short(8)
            )));
        }
        let hex: String = record[40..].iter().map(|byte| format!("{byte:02x}")).collect();
        let made = Made { size: long(32), diff_id: format!("sha256:{hex}").parse()? };
        Ok(Some((Self { index: short(16), pieces: short(20), length: long(24) }, made)))
    }
}

/// The bytes of a digest.
pub(crate) fn from_hex(hex: &str) -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok();
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        *byte = value.ok_or_else(|| Error::internal(format!("no digest: {hex:?}")))?;
    }
    Ok(bytes)
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

/// The opposite.
pub(crate) fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

fn compressing() -> &'static str {
    "compress what the layer's image lacks"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_go_into_the_last_bit() {
        for (number, encoded) in
            [(0, 0), (-1, 1), (1, 2), (i64::MAX, u64::MAX - 1), (i64::MIN, u64::MAX)]
        {
            assert_eq!(zigzag(number), encoded);
            assert_eq!(unzigzag(encoded), number);
        }
    }

    #[test]
    fn a_locator_reads_back_and_damage_is_seen() {
        let locator = Locator { index: 7, pieces: 3, length: 1 << 40 };
        let made = Made { size: u64::MAX - 1, diff_id: Digest::of(b"archive") };
        let record = locator.encode(&made).expect("encode");
        assert_eq!(Locator::decode(&record).expect("decode"), Some((locator, made)));
        assert_eq!(Locator::decode(&[0; LOCATOR]).expect("none"), None);
        for at in 8..LOCATOR {
            let mut damaged = record;
            damaged[at] ^= 1;
            let error = Locator::decode(&damaged).expect_err("damage");
            assert_eq!(error.kind(), berth_types::Kind::DataLoss);
        }
    }
}
