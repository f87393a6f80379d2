//! The data of regular files, written as it comes.

use std::io::Read;

use berth_archive::{Entries, Entry};
use berth_types::Result;

use crate::directories::inline;
use crate::draft::Draft;
use crate::format::{BLOCK, HOLE, Layout};
use crate::recipe::Recipe;
use crate::volume::Volume;

/// Files with at least this many bytes of holes are stored in chunks, others with zeros.
const WORTHWHILE: u64 = 64 << 10;

/// The most chunks of one file: their addresses wait for its end in memory.
const MAX_CHUNKS: u64 = 1 << 16;

/// Where a file's data is.
pub(crate) struct Content {
    pub(crate) layout: Layout,
    /// What follows the inode: the last, partial block, or the addresses of chunks.
    pub(crate) trailer: Vec<u8>,
    /// Which parts of the trailer the archive has, behind all other data: offsets and lengths.
    pub(crate) of_archive: Vec<(usize, usize)>,
}

/// Where the data of files goes, and who is told the place.
struct Sink<'a> {
    volume: &'a mut Volume,
    recipe: &'a mut Option<Recipe>,
}

impl Sink<'_> {
    /// Writes `bytes` at `offset`, which is the end or behind it.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.volume.extend_to(offset)?;
        if let Some(recipe) = self.recipe {
            recipe.copy(offset, bytes.len() as u64)?;
        }
        self.volume.append(bytes)
    }
}

impl Draft {
    /// Writes the data of the current member, whose inode will have `xattrs` bytes of attributes.
    pub(crate) fn write_content<R: Read>(
        &mut self,
        entry: &Entry,
        xattrs: usize,
        entries: &mut Entries<R>,
    ) -> Result<Content> {
        let mut sink = Sink { volume: &mut self.volume, recipe: &mut self.recipe };
        if entries.hole_bytes() >= WORTHWHILE {
            self.chunked = true;
            return write_chunks(&mut sink, entry.size, entries);
        }
        let tail = (entry.size % BLOCK as u64) as usize;
        if tail > 0 && inline(xattrs, tail) {
            return write_with_tail(&mut sink, entry.size, tail, entries);
        }
        let address = sink.volume.next_block();
        let start = sink.volume.end();
        entries.write_data(|offset, bytes| sink.write(start + offset, bytes))?;
        self.volume.extend_to(start + entry.size)?;
        self.volume.align()?;
        // The kernel ignores the address where there is no data; a constant is tidier.
        let address = if entry.size == 0 { 0 } else { address };
        Ok(Content::new(Layout::Plain(address), Vec::new()))
    }
}

impl Content {
    fn new(layout: Layout, trailer: Vec<u8>) -> Self {
        Self { layout, trailer, of_archive: Vec::new() }
    }
}

/// Writes whole blocks, and gives back the `tail` that follows them.
fn write_with_tail<R: Read>(
    sink: &mut Sink<'_>,
    size: u64,
    tail: usize,
    entries: &mut Entries<R>,
) -> Result<Content> {
    let whole = size - tail as u64;
    let (address, start) = (sink.volume.next_block(), sink.volume.end());
    let mut content = Content::new(Layout::Inline(address), vec![0; tail]);
    entries.write_data(|offset, bytes| {
        let before = whole.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let (block, rest) = bytes.split_at(before);
        if !block.is_empty() {
            sink.write(start + offset, block)?;
        }
        if !rest.is_empty() {
            let at = (offset + before as u64 - whole) as usize;
            content.trailer[at..at + rest.len()].copy_from_slice(rest);
            content.of_archive.push((at, rest.len()));
        }
        Ok(())
    })?;
    sink.volume.extend_to(start + whole)?;
    if whole == 0 {
        content.layout = Layout::Inline(0);
    }
    Ok(content)
}

/// Writes the chunks that hold data, and gives back the addresses of all.
fn write_chunks<R: Read>(
    sink: &mut Sink<'_>,
    size: u64,
    entries: &mut Entries<R>,
) -> Result<Content> {
    let exponent = exponent(size);
    let chunk = (BLOCK as u64) << exponent;
    let mut addresses = vec![HOLE; size.div_ceil(chunk) as usize];
    // The chunk being written, and where it is.
    let (mut current, mut start) = (u64::MAX, 0);
    entries.write_data(|mut offset, mut bytes| {
        while !bytes.is_empty() {
            let (number, within) = (offset / chunk, offset % chunk);
            if number != current {
                end_chunk(sink.volume, current, start, chunk, size)?;
                (current, start) = (number, sink.volume.end());
                addresses[number as usize] = sink.volume.next_block();
            }
            let count = (chunk - within).min(bytes.len() as u64);
            sink.write(start + within, &bytes[..count as usize])?;
            bytes = &bytes[count as usize..];
            offset += count;
        }
        Ok(())
    })?;
    end_chunk(sink.volume, current, start, chunk, size)?;
    let trailer = addresses.iter().flat_map(|address| address.to_le_bytes()).collect();
    Ok(Content::new(Layout::Chunked(exponent), trailer))
}

/// Fills up the chunk `number` at `start`, but not behind the end of the file's last block.
fn end_chunk(volume: &mut Volume, number: u64, start: u64, chunk: u64, size: u64) -> Result<()> {
    if number == u64::MAX {
        return Ok(());
    }
    let length = chunk.min(size - number * chunk).next_multiple_of(BLOCK as u64);
    volume.extend_to(start + length)
}

/// The smallest chunks that are not too many.
fn exponent(size: u64) -> u8 {
    let blocks = size.div_ceil(BLOCK as u64);
    let chunks = blocks.div_ceil(MAX_CHUNKS).max(1);
    chunks.next_power_of_two().ilog2() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_small_and_few() {
        let cases = [(1 << 16, 0), (1 << 28, 0), ((1 << 28) + 1, 1), (1 << 36, 8), (64 << 30, 8)];
        for (size, expected) in cases {
            assert_eq!(exponent(size), expected, "{size}");
            assert!(size.div_ceil((BLOCK as u64) << expected) <= MAX_CHUNKS);
        }
    }
}
