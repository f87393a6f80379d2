//! Blocks of inodes. What belongs to an inode and fits in a block must not cross the end of one.

use berth_types::Result;

use crate::format::{BLOCK, SLOT};

/// Blocks kept open: with a few, small inodes fill what large ones leave.
const MAX_OPEN: usize = 8;

/// Where inodes are placed.
#[derive(Default)]
pub(crate) struct Shelf {
    open: Vec<Rest>,
}

/// The free end of a block.
struct Rest {
    offset: u64,
    length: usize,
}

impl Shelf {
    /// The offset for `length` bytes: in the open block that they fit best, else in new ones, whose
    /// offset `allocate` gives for a number of blocks.
    pub(crate) fn place(
        &mut self,
        length: usize,
        allocate: impl FnOnce(u64) -> Result<u64>,
    ) -> Result<u64> {
        let length = length.next_multiple_of(SLOT);
        let fitting = (0..self.open.len()).filter(|at| self.open[*at].length >= length);
        if let Some(at) = fitting.min_by_key(|at| self.open[*at].length) {
            let rest = &mut self.open[at];
            let offset = rest.offset;
            rest.offset += length as u64;
            rest.length -= length;
            return Ok(offset);
        }
        let offset = allocate(length.div_ceil(BLOCK) as u64)?;
        let rest = length.next_multiple_of(BLOCK) - length;
        self.open.push(Rest { offset: offset + length as u64, length: rest });
        if self.open.len() > MAX_OPEN {
            let fullest = (0..self.open.len()).min_by_key(|at| self.open[*at].length);
            self.open.remove(fullest.unwrap_or(0));
        }
        Ok(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_fills_what_large_leaves() {
        let mut next = 0;
        let mut shelf = Shelf::default();
        let mut place = |length| {
            shelf.place(length, |blocks| {
                next += blocks * BLOCK as u64;
                Ok(next - blocks * BLOCK as u64)
            })
        };
        assert_eq!(place(3000).ok(), Some(0));
        assert_eq!(place(2000).ok(), Some(4096));
        assert_eq!(place(1000).ok(), Some(3008));
        assert_eq!(place(2080).ok(), Some(4096 + 2016));
        assert_eq!(place(10_000).ok(), Some(8192));
        assert_eq!(place(2000).ok(), Some(8192 + 10_016));
        assert_eq!(place(64).ok(), Some(4032));
    }
}
