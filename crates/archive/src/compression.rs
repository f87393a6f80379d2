//! Compressed layers: told apart by their first bytes, read as one stream.
//!
//! The media type of a layer names a compression too, but registries hold layers of which it is
//! wrong, so the bytes decide, as they do in containerd.
//!
//! - gzip (RFC 1952): any number of members; anything after the last that is no member is an error.
//! - zstd (RFC 8878): any number of frames and skippable frames, windows of up to 128 MiB.
//! - anything else that isn't known as another compression is taken as uncompressed.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use berth_types::{Error, Result, ResultExt};
use flate2::bufread::MultiGzDecoder;

/// How much is read from below at once, in bytes.
const READ_SIZE: usize = 128 << 10;

/// The largest window that a zstd frame may ask for, as a power of two: what `zstd -d` allows.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Below this many decompressed bytes no ratio is suspicious.
const RATIO_FLOOR: u64 = 1 << 30;

/// Beyond [`RATIO_FLOOR`], decompressed bytes per compressed byte that only a bomb has: deflate
/// reaches 1032 on zeros alone, file systems reach 10.
const RATIO: u64 = 200;

/// What a layer is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar stream.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
}

impl Compression {
    /// The compression that a stream beginning with `start` has; six bytes are enough.
    ///
    /// # Errors
    /// [`Kind::Unimplemented`](berth_types::Kind::Unimplemented) for bzip2 and xz.
    pub fn detect(start: &[u8]) -> Result<Self> {
        let refused = |name| {
            Err(Error::unimplemented(format!(
                "the layer is compressed with {name}; only gzip, zstd and none are supported"
            )))
        };
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => refused("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => refused("xz"),
            _ => Ok(Self::None),
        }
    }
}

/// A reader of the uncompressed bytes. It fails with
/// [`Kind::ResourceExhausted`](berth_types::Kind::ResourceExhausted) inside the [`io::Error`] when
/// the stream grows as only a decompression bomb does.
pub struct Decompress<R: Read>(Stream<Below<R>>);

/// The compressed bytes: those looked at to tell the compression, then the rest.
type Below<R> = BufReader<Counted<Chain<Cursor<Vec<u8>>, R>>>;

enum Stream<R: BufRead> {
    None(R),
    Gzip { decoder: Box<MultiGzDecoder<R>>, produced: u64 },
    Zstd { decoder: zstd::stream::read::Decoder<'static, R>, produced: u64 },
}

impl<R: Read> Decompress<R> {
    /// Reads the first bytes of `reader` and sets up what they ask for.
    ///
    /// # Errors
    /// Those of reading, and of [`Compression::detect`].
    pub fn new(mut reader: R) -> Result<Self> {
        let mut start = Vec::with_capacity(6);
        reader.by_ref().take(6).read_to_end(&mut start).map_err(read_error)?;
        let compression = Compression::detect(&start)?;
        let whole = Counted { inner: Cursor::new(start).chain(reader), count: 0 };
        let below = BufReader::with_capacity(READ_SIZE, whole);
        Ok(Self(match compression {
            Compression::None => Stream::None(below),
            Compression::Gzip => {
                Stream::Gzip { decoder: Box::new(MultiGzDecoder::new(below)), produced: 0 }
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(below)
                    .context(|| "set up zstd decompression")?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG)
                    .context(|| "limit the zstd decompression window")?;
                Stream::Zstd { decoder, produced: 0 }
            }
        }))
    }

    /// What the stream is compressed with.
    pub fn compression(&self) -> Compression {
        match self.0 {
            Stream::None(_) => Compression::None,
            Stream::Gzip { .. } => Compression::Gzip,
            Stream::Zstd { .. } => Compression::Zstd,
        }
    }
}

impl<R: Read> Read for Decompress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, produced, consumed) = match &mut self.0 {
            Stream::None(reader) => return reader.read(buffer),
            Stream::Gzip { decoder, produced } => {
                let read = decoder.read(buffer)?;
                (read, produced, decoder.get_ref().get_ref().count)
            }
            Stream::Zstd { decoder, produced } => {
                let read = decoder.read(buffer)?;
                (read, produced, decoder.get_ref().get_ref().count)
            }
        };
        *produced += read as u64;
        if *produced > RATIO_FLOOR && *produced / RATIO > consumed {
            return Err(io::Error::other(Error::resource_exhausted(format!(
                "the layer is a decompression bomb: {consumed} bytes became {produced}, \
                 more than {RATIO} times as many"
            ))));
        }
        Ok(read)
    }
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

/// The error of reading a layer: berth's own, when the reader below put one into the
/// [`io::Error`], else one that says whether the layer or the machine is at fault.
pub(crate) fn read_error(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own.context("read the layer"),
        Err(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Error::data_loss("read the layer: it ends before its time; fetch it again")
            }
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                Error::invalid_argument(format!("read the layer: {error}"))
            }
            _ => Error::io("read the layer", &error),
        },
    }
}
