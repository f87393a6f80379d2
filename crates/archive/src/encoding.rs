//! Blobs made again of their archives.
//!
//! Compression has no normal form: which bytes an archive becomes depends on the encoder, how it was
//! set up and even how much it was given at a time, and no blob tells that. But the encoders at hand
//! can be tried on the first bytes. What berth compressed is found so, which always gives them pieces
//! of one size, and zstd by other programs that use the same library; what Go's encoders made is not,
//! and nothing here tries to.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use berth_types::{Error, Result};
use flate2::write::GzEncoder;
use zstd::stream::write::Encoder;
use zstd::zstd_safe;

use crate::compression::{Compression, Decompress, read_error};

/// How much of a blob is looked at, in bytes.
const SAMPLE: u64 = 1 << 20;

/// How much of the archive is compressed to compare, in bytes.
const TRIAL: u64 = 512 << 10;

/// Fewer equal bytes say nothing, unless they are all.
const ENOUGH: usize = 1 << 10;

/// Levels in the order in which they are tried: the default and the fastest first.
const GZIP_LEVELS: [u32; 9] = [6, 1, 9, 5, 4, 3, 2, 7, 8];

/// Likewise; higher ones take too long to be tried.
const ZSTD_LEVELS: [i32; 9] = [3, 1, 2, 4, 5, 6, 7, 8, 9];

/// How much is compressed at once, in bytes: zlib-rs makes other bytes of other pieces.
const PIECE: usize = 128 << 10;

/// An encoder, set up so that it makes a blob of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The blob is the archive.
    None,
    /// zlib-rs, with nothing in the header that is optional.
    Gzip {
        /// 1 to 9.
        level: u32,
    },
    /// libzstd, one frame.
    Zstd {
        /// The level.
        level: i32,
        /// The frame ends with a checksum.
        checksum: bool,
        /// The frame says how long its content is.
        sized: bool,
    },
}

impl Encoding {
    /// The encoding of the blob that begins with what `blob` reads, as far as its first bytes tell:
    /// who uses it compares digests. `None` when there is none.
    ///
    /// # Errors
    /// Those of `blob`.
    pub fn find(blob: impl Read) -> Result<Option<Self>> {
        let mut start = Vec::new();
        blob.take(SAMPLE).read_to_end(&mut start).map_err(read_error)?;
        if Compression::detect(&start)? == Compression::None {
            return Ok(Some(Self::None));
        }
        let mut archive = Vec::new();
        let mut tar = Decompress::new(start.as_slice())?.take(TRIAL);
        // The sample ends in the middle of something.
        let whole = tar.read_to_end(&mut archive).is_ok() && (archive.len() as u64) < TRIAL;
        let candidates = candidates(&start);
        Ok(candidates.into_iter().find(|candidate| candidate.makes(&start, &archive, whole)))
    }

    /// Whether the encoder makes a blob that begins with `start` of an archive that begins with
    /// `archive`, or is it.
    fn makes(self, start: &[u8], archive: &[u8], whole: bool) -> bool {
        let size = self.size(start, archive.len() as u64);
        let Ok(mut encoder) = Compressor::new(self, size, Vec::new()) else { return false };
        if encoder.write_all(archive).is_err() {
            return false;
        }
        if whole {
            return encoder.finish().is_ok_and(|made| made == start);
        }
        let made = encoder.encoder.output();
        let length = made.len().min(start.len());
        length >= ENOUGH && made[..length] == start[..length]
    }

    /// The length of the archive that a blob tells in its first bytes.
    fn size(self, start: &[u8], otherwise: u64) -> u64 {
        let told = zstd_safe::get_frame_content_size(start).ok().flatten();
        told.filter(|_| matches!(self, Self::Zstd { .. })).unwrap_or(otherwise)
    }

    /// Writes the blob of an archive of `size` bytes.
    ///
    /// # Errors
    /// Those of `archive` and `output`.
    pub fn encode<W: Write>(self, mut archive: impl Read, size: u64, output: W) -> Result<W> {
        let compressing = |error| Error::io("compress a layer", &error);
        let mut encoder = Compressor::new(self, size, output).map_err(compressing)?;
        let mut piece = vec![0; PIECE];
        loop {
            match archive.read(&mut piece).map_err(read_error)? {
                0 => return encoder.finish().map_err(read_error),
                count => encoder.write_all(&piece[..count]).map_err(read_error)?,
            }
        }
    }
}

/// What could have made a blob that begins so.
fn candidates(start: &[u8]) -> Vec<Encoding> {
    match start {
        // No flags and no time, by a system that is not told (RFC 1952, 2.3).
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, _, 0xff, ..] => {
            GZIP_LEVELS.iter().map(|level| Encoding::Gzip { level: *level }).collect()
        }
        // RFC 8878, 3.1.1.1.1: the descriptor of a frame without dictionary.
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, ..] if descriptor & 3 == 0 => {
            let checksum = descriptor & 4 != 0;
            let sized = descriptor & 0xe0 != 0;
            let with = |level: &i32| Encoding::Zstd { level: *level, checksum, sized };
            ZSTD_LEVELS.iter().map(with).collect()
        }
        _ => Vec::new(),
    }
}

/// Makes a blob of what is written to it.
pub struct Compressor<W: Write> {
    encoder: Inner<W>,
    /// What waits for a whole piece.
    piece: Vec<u8>,
}

impl<W: Write> Compressor<W> {
    /// A compressor of `size` bytes, which only some encodings need to know.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(encoding: Encoding, size: u64, output: W) -> io::Result<Self> {
        let encoder = Inner::new(encoding, size, output)?;
        Ok(Self { encoder, piece: Vec::with_capacity(PIECE) })
    }

    /// Ends the blob, and gives the output back.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.encoder.write_all(&self.piece)?;
        self.encoder.finish()
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            self.encoder.write_all(&self.piece)?;
            self.piece.clear();
        }
        Ok(count)
    }

    /// Nothing is compressed before its time.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An encoder at work.
enum Inner<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Zstd(Encoder<'static, W>),
}

impl<W: Write> Inner<W> {
    fn new(encoding: Encoding, size: u64, output: W) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::None => Self::None(output),
            Encoding::Gzip { level } => {
                Self::Gzip(GzEncoder::new(output, flate2::Compression::new(level)))
            }
            Encoding::Zstd { level, checksum, sized } => {
                let mut encoder = Encoder::new(output, level)?;
                encoder.include_checksum(checksum)?;
                encoder.include_contentsize(sized)?;
                encoder.set_pledged_src_size(sized.then_some(size))?;
                Self::Zstd(encoder)
            }
        })
    }

    fn output(&self) -> &W {
        match self {
            Self::None(output) => output,
            Self::Gzip(encoder) => encoder.get_ref(),
            Self::Zstd(encoder) => encoder.get_ref(),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None(output) => output.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::None(output) => Ok(output),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Gzip { level } => write!(f, "gzip-{level}"),
            Self::Zstd { level, checksum, sized } => {
                let flags = [(*checksum, "+checksum"), (*sized, "+size")];
                let flags: String =
                    flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
                write!(f, "zstd-{level}{flags}")
            }
        }
    }
}

impl FromStr for Encoding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::invalid_argument(format!("{text:?} is no encoding of a layer"));
        let mut parts = text.split('+');
        let (name, level) = parts.next().unwrap_or_default().split_once('-').unwrap_or((text, "0"));
        let flags: Vec<_> = parts.collect();
        let has = |flag| flags.contains(&flag);
        let encoding = match name {
            "none" => Self::None,
            "gzip" => Self::Gzip { level: level.parse().map_err(|_| unknown())? },
            "zstd" => Self::Zstd {
                level: level.parse().map_err(|_| unknown())?,
                checksum: has("checksum"),
                sized: has("size"),
            },
            _ => return Err(unknown()),
        };
        // Whatever else is in the text is of a later release.
        if encoding.to_string() == text { Ok(encoding) } else { Err(unknown()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that compresses as files do.
    fn archive(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let word = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            format!("{:x} ", (state >> 20) % 700).into_bytes()
        };
        std::iter::repeat_with(word).flatten().take(length).collect()
    }

    fn all() -> Vec<Encoding> {
        let gzip = GZIP_LEVELS.map(|level| Encoding::Gzip { level });
        let flags = [(false, false), (true, false), (false, true), (true, true)];
        let zstd = ZSTD_LEVELS.iter().flat_map(|level| {
            flags.map(|(checksum, sized)| Encoding::Zstd { level: *level, checksum, sized })
        });
        gzip.into_iter().chain(zstd).collect()
    }

    #[test]
    fn what_an_encoder_made_it_makes_again() {
        for length in [0, 5000, 3 << 20] {
            let archive = archive(length);
            for encoding in all() {
                let size = archive.len() as u64;
                let blob = encoding.encode(archive.as_slice(), size, Vec::new()).expect("encode");
                let found = Encoding::find(blob.as_slice()).expect("find");
                // Levels may make the same of short archives.
                let found = found.unwrap_or_else(|| panic!("{encoding}, {length} bytes"));
                let again = found.encode(archive.as_slice(), size, Vec::new()).expect("encode");
                assert!(again == blob, "{found} is not {encoding} for {length} bytes");
            }
        }
    }

    #[test]
    fn what_others_made_is_not_claimed() {
        let archive = archive(3 << 20);
        let level = flate2::Compression::new(6);
        let mut named = flate2::GzBuilder::new().filename("a").write(Vec::new(), level);
        named.write_all(&archive).expect("compress");
        let two = |level| {
            let halves = archive.split_at(100_000);
            let encode = |half: &[u8]| {
                Encoding::Gzip { level }
                    .encode(half, half.len() as u64, Vec::new())
                    .expect("encode")
            };
            [encode(halves.0), encode(halves.1)].concat()
        };
        for blob in [named.finish().expect("compress"), two(6)] {
            assert_eq!(Encoding::find(blob.as_slice()).expect("find"), None);
        }
        assert_eq!(Encoding::find(archive.as_slice()).expect("find"), Some(Encoding::None));
        assert_eq!(Encoding::find(&b"\x1f\x8b"[..]).expect("find"), None);
    }

    #[test]
    fn names_read_back() {
        for encoding in all().into_iter().chain([Encoding::None]) {
            assert_eq!(encoding.to_string().parse::<Encoding>().expect("parse"), encoding);
        }
        for text in ["", "gzip", "gzip-x", "zstd-3+more", "zstd-3+size+checksum", "lz4-1"] {
            assert!(text.parse::<Encoding>().is_err(), "{text}");
        }
    }
}
