//! A layer's archive, made again from its image.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use berth_types::{Algorithm, Digest, Error, Hasher, Result, ResultExt};
use zstd::stream::read::Decoder;

use crate::format::BLOCK;
use crate::recipe::{LOCATOR, Locator, Made, PIECE, WINDOW_LOG, unzigzag};

/// How much is decompressed at once, in bytes.
const BUFFER: usize = 64 << 10;

/// The archive that an image was made of, byte for byte.
///
/// Nothing is trusted: what comes out is the archive with the digest that the image has noted, or
/// ends with an [`io::Error`] that holds a DataLoss. The last bytes are only given out when the
/// digest of all is right.
pub struct Archive {
    image: Arc<File>,
    steps: BufReader<Decoder<'static, BufReader<Pieces>>>,
    made: Made,
    hasher: Hasher,
    produced: u64,
    step: Step,
    /// What is left of the step, in bytes.
    left: u64,
    /// Where the last bytes that the image had ended.
    end: u64,
}

/// Where the next bytes are.
#[derive(Clone, Copy)]
enum Step {
    Recipe,
    Image(u64),
}

impl Archive {
    /// Reads the archive of the layer in `image`; `None` when it was written without what that
    /// takes.
    ///
    /// # Errors
    /// DataLoss when the image is damaged, and those of the disk.
    pub fn open(image: File) -> Result<Option<Self>> {
        let mut record = [0; LOCATOR];
        match image.read_exact_at(&mut record, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read.context(reading)?,
        }
        let Some((locator, made)) = Locator::decode(&record)? else { return Ok(None) };
        let image = Arc::new(image);
        let pieces = Pieces::read(image.clone(), locator)?;
        let mut frame = Decoder::with_buffer(pieces).context(reading)?;
        frame.window_log_max(WINDOW_LOG).context(reading)?;
        Ok(Some(Self {
            image,
            steps: BufReader::with_capacity(BUFFER, frame),
            made,
            hasher: Hasher::new(Algorithm::Sha256),
            produced: 0,
            step: Step::Recipe,
            left: 0,
            end: 0,
        }))
    }

    /// The length of the archive.
    pub fn size(&self) -> u64 {
        self.made.size
    }

    /// The digest of the archive.
    pub fn diff_id(&self) -> &Digest {
        &self.made.diff_id
    }

    /// Goes on to the next step.
    fn next_step(&mut self) -> io::Result<()> {
        let number = self.number()?;
        self.left = number >> 1;
        if self.left == 0 || self.left > self.made.size - self.produced {
            return Err(self.damaged("its recipe makes another archive"));
        }
        self.step = Step::Recipe;
        if number & 1 == 1 {
            let distance = unzigzag(self.number()?);
            let offset = self.end.checked_add_signed(distance);
            let end = offset.and_then(|offset| offset.checked_add(self.left));
            let (Some(offset), Some(end)) = (offset, end) else {
                return Err(self.damaged("its recipe leads out of it"));
            };
            self.step = Step::Image(offset);
            self.end = end;
        }
        Ok(())
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.steps.read_exact(&mut byte).map_err(|error| self.unreadable(error))?;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.damaged("its recipe has a number that is too long"))
    }

    fn damaged(&self, why: &str) -> io::Error {
        io::Error::other(damaged(&self.made.diff_id, why))
    }

    /// What zstd can't read is damaged, unless the disk is to blame.
    fn unreadable(&self, error: io::Error) -> io::Error {
        match error.raw_os_error() {
            Some(_) => error,
            None => self.damaged(&format!("its recipe can't be read ({error})")),
        }
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.produced == self.made.size || buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            self.next_step()?;
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..most];
        let count = match &mut self.step {
            Step::Recipe => {
                let read = self.steps.read(buffer);
                read.map_err(|error| self.unreadable(error))?
            }
            Step::Image(offset) => {
                let count = self.image.read_at(buffer, *offset)?;
                *offset += count as u64;
                count
            }
        };
        if count == 0 {
            return Err(self.damaged("it is cut short"));
        }
        self.hasher.update(&buffer[..count]);
        self.produced += count as u64;
        self.left -= count as u64;
        if self.produced == self.made.size {
            let hasher = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256));
            let digest = hasher.finish();
            if digest != self.made.diff_id {
                self.produced = 0;
                return Err(self.damaged(&format!("it makes {digest}")));
            }
        }
        Ok(count)
    }
}

/// The pieces of a recipe, one after the other.
struct Pieces {
    image: Arc<File>,
    addresses: std::vec::IntoIter<u32>,
    /// What is left of the current one, and where.
    offset: u64,
    within: u64,
    /// What is left of all.
    left: u64,
}

impl Pieces {
    fn read(image: Arc<File>, locator: Locator) -> Result<BufReader<Self>> {
        let bad =
            || Error::data_loss("the layer's image is damaged: its recipe lies outside of it");
        let blocks = image.metadata().context(reading)?.len() / BLOCK as u64;
        let pieces = u64::from(locator.pieces);
        if pieces != locator.length.div_ceil(PIECE as u64) || pieces > blocks {
            return Err(bad());
        }
        let mut index = vec![0; 4 * locator.pieces as usize];
        match image.read_exact_at(&mut index, u64::from(locator.index) * BLOCK as u64) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(bad()),
            read => read.context(reading)?,
        }
        let (addresses, _) = index.as_chunks::<4>();
        let addresses: Vec<u32> =
            addresses.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let addresses = addresses.into_iter();
        let pieces = Self { image, addresses, offset: 0, within: 0, left: locator.length };
        Ok(BufReader::with_capacity(BUFFER, pieces))
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.within == 0 {
            let Some(address) = self.addresses.next() else { return Ok(0) };
            self.offset = u64::from(address) * BLOCK as u64;
            self.within = self.left.min(PIECE as u64);
        }
        let most = usize::try_from(self.within).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.image.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.within -= count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn damaged(diff_id: &Digest, why: &str) -> Error {
    Error::data_loss(format!("the image of layer {diff_id} is damaged: {why}"))
}

fn reading() -> &'static str {
    "read the layer's image"
}
