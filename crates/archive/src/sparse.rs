//! Sparse members: where the data of a file with holes lies.
//!
//! GNU tar's manual, "Storing Sparse Files", describes the four forms: type `S` with the map in
//! the header, and as extended headers 0.0, 0.1 and 1.0, the last with its map before the data.

use std::io::Read;

use berth_types::{Error, Result};
use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::header::{self, unsigned};
use crate::pax::decimal;
use crate::source::{BLOCK, Source, truncated};

/// More extents than this are refused: the map of an honest file stays far below.
const MAX_EXTENTS: usize = 1 << 18;

/// A run of data in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The data of a member: its runs in the file in rising order, and the file's length.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) extents: Vec<Extent>,
    pub(crate) length: u64,
}

impl Map {
    /// The map of a file without holes.
    pub(crate) fn solid(length: u64) -> Self {
        Self { extents: vec![Extent { offset: 0, length }], length }
    }

    /// Checks that the extents rise, end within the file and hold just the `stored` bytes. Empty
    /// ones, by which GNU tar marks the end, are dropped.
    fn checked(mut self, stored: u64) -> Result<Self> {
        let mut end = 0;
        let mut sum = 0u64;
        for extent in &self.extents {
            if extent.offset < end {
                return Err(bad("overlap"));
            }
            end = extent.offset.checked_add(extent.length).ok_or_else(|| bad("overflow"))?;
            sum = sum.checked_add(extent.length).ok_or_else(|| bad("overflow"))?;
        }
        if end > self.length || self.length > i64::MAX as u64 {
            return Err(bad("pass the end of the file"));
        }
        if sum != stored {
            return Err(bad("disagree with the size of the data"));
        }
        self.extents.retain(|extent| extent.length > 0);
        Ok(self)
    }
}

/// Reads the map of a type `S` member, whose extension blocks follow the header. `stored` is the
/// size in the header.
///
/// # Errors
/// InvalidArgument when the map contradicts itself or the header.
pub(crate) fn gnu<R: Read>(source: &mut Source<R>, header: &Header, stored: u64) -> Result<Map> {
    let gnu = header::gnu(header)?;
    let mut extents = Vec::new();
    add_extents(&mut extents, &gnu.sparse)?;
    let mut extended = gnu.isextended[0] != 0;
    while extended {
        let mut block = GnuExtSparseHeader::new();
        block.as_mut_bytes().copy_from_slice(&source.block()?.ok_or_else(truncated)?);
        add_extents(&mut extents, &block.sparse)?;
        extended = block.isextended[0] != 0;
    }
    Map { extents, length: unsigned(&gnu.realsize, "sparse size")? }.checked(stored)
}

fn add_extents(extents: &mut Vec<Extent>, found: &[GnuSparseHeader]) -> Result<()> {
    for sparse in found.iter().filter(|sparse| !sparse.is_empty()) {
        let offset = unsigned(&sparse.offset, "sparse offset")?;
        push(extents, Extent { offset, length: unsigned(&sparse.numbytes, "sparse length")? })?;
    }
    Ok(())
}

fn push(extents: &mut Vec<Extent>, extent: Extent) -> Result<()> {
    if extents.len() == MAX_EXTENTS {
        return Err(bad("are too many"));
    }
    extents.push(extent);
    Ok(())
}

/// What `GNU.sparse.*` records said so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct PaxSparse {
    /// The file's name; the member's own then is made up for readers that know nothing of holes.
    pub(crate) name: Option<Vec<u8>>,
    length: Option<u64>,
    major: Option<u64>,
    minor: Option<u64>,
    /// The map of 0.0 and 0.1: offsets and lengths in turn.
    numbers: Vec<u64>,
}

impl PaxSparse {
    /// Takes in the record `GNU.sparse.{name}`.
    ///
    /// # Errors
    /// InvalidArgument when its value is malformed.
    pub(crate) fn set(&mut self, name: &str, value: &[u8]) -> Result<()> {
        match name {
            "name" => self.name = Some(value.to_vec()),
            "major" => self.major = Some(decimal(value)?),
            "minor" => self.minor = Some(decimal(value)?),
            "size" | "realsize" => self.length = Some(decimal(value)?),
            "offset" | "numbytes" => self.push_number(decimal(value)?)?,
            "map" => {
                for number in value.split(|byte| *byte == b',') {
                    self.push_number(decimal(number)?)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push_number(&mut self, number: u64) -> Result<()> {
        if self.numbers.len() == 2 * MAX_EXTENTS {
            return Err(bad("are too many"));
        }
        self.numbers.push(number);
        Ok(())
    }

    /// The map of a member with `stored` bytes, and how many of those are the map itself; `None`
    /// if no record made the member sparse.
    ///
    /// # Errors
    /// InvalidArgument when the map contradicts itself or the member; Unimplemented for a version
    /// that GNU tar doesn't know.
    pub(crate) fn map<R: Read>(
        &self,
        source: &mut Source<R>,
        stored: u64,
    ) -> Result<Option<(Map, u64)>> {
        let version = (self.major.unwrap_or(0), self.minor.unwrap_or(0));
        let Some(length) = self.length else {
            return match version {
                (0, 0) if self.numbers.is_empty() => Ok(None),
                _ => Err(bad("come without a size")),
            };
        };
        let (extents, used) = match version {
            (0, _) => (pairs(&self.numbers)?, 0),
            (1, 0) => leading_map(source, stored)?,
            (major, minor) => {
                return Err(Error::unimplemented(format!(
                    "the layer's archive has a sparse file of unknown form {major}.{minor}"
                )));
            }
        };
        let map = Map { extents, length };
        Ok(Some((map.checked(stored.checked_sub(used).ok_or_else(truncated)?)?, used)))
    }
}

fn pairs(numbers: &[u64]) -> Result<Vec<Extent>> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(bad("have an offset without a length"));
    }
    Ok(pairs.iter().map(|[offset, length]| Extent { offset: *offset, length: *length }).collect())
}

/// Reads the map of form 1.0: the number of extents, then offset and length of each, a decimal
/// number on each line, padded to a block. Also returns the bytes it took.
fn leading_map<R: Read>(source: &mut Source<R>, stored: u64) -> Result<(Vec<Extent>, u64)> {
    let mut numbers = Vec::new();
    let mut line = Vec::new();
    let mut used = 0;
    loop {
        if used + BLOCK as u64 > stored {
            return Err(bad("are longer than their member"));
        }
        let block = source.block()?.ok_or_else(truncated)?;
        used += BLOCK as u64;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            numbers.push(decimal(&line)?);
            line.clear();
            if numbers[0] > MAX_EXTENTS as u64 {
                return Err(bad("are too many"));
            }
            if numbers.len() as u64 == 1 + 2 * numbers[0] {
                return Ok((pairs(&numbers[1..])?, used));
            }
        }
        if line.len() > 20 {
            return Err(bad("hold no number"));
        }
    }
}

fn bad(why: &str) -> Error {
    Error::invalid_argument(format!("the layer's archive has a sparse file whose extents {why}"))
}
