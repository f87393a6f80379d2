//! What a guest wrote to its disk, in order, and when that was certain to be on it. The format is
//! that of Linux's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;

/// In which places and sizes are told, in bytes.
pub(crate) const SECTOR: u64 = 512;

/// Of an entry: everything written before it is on the disk.
const FLUSH: u64 = 1;
/// Of an entry: it is on the disk itself.
const FUA: u64 = 2;
/// Of an entry: it has no data.
const DISCARD: u64 = 4;

/// All that was written.
pub(crate) struct Log {
    file: File,
    entries: Vec<Entry>,
}

/// A write, a flush, or both.
struct Entry {
    /// Where on the disk, in bytes.
    to: u64,
    /// Where in the log, in bytes.
    from: u64,
    length: u64,
    flags: u64,
}

impl Log {
    pub(crate) fn read(path: &Path) -> Self {
        let file = File::open(path).expect("open the log of a disk");
        let word = |at: u64| {
            let mut word = [0; 8];
            file.read_exact_at(&mut word, at).expect("read the log of a disk");
            u64::from_le_bytes(word)
        };
        assert_eq!(word(0), MAGIC, "it is a log of writes");
        let (count, sector) = (word(16), word(24) & u64::from(u32::MAX));
        assert_eq!(sector, SECTOR);
        let mut entries = Vec::new();
        let mut at = sector;
        for _ in 0..count {
            let (to, length, flags) = (word(at) * sector, word(at + 8) * sector, word(at + 16));
            let length = if flags & DISCARD == 0 { length } else { 0 };
            entries.push(Entry { to, from: at + sector, length, flags });
            at += sector + length;
        }
        Self { file, entries }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where the flushes are.
    pub(crate) fn flushes(&self) -> Vec<usize> {
        let flushes = self.entries.iter().enumerate().filter(|(_, entry)| entry.flags & FLUSH > 0);
        flushes.map(|(number, _)| number).collect()
    }

    /// What was written to the sector at `place`, and where that is in the log.
    pub(crate) fn marks(&self, place: u64) -> Vec<(usize, String)> {
        let marks = self.entries.iter().enumerate().filter(|(_, entry)| entry.to == place);
        marks
            .filter(|(_, entry)| entry.length > 0)
            .map(|(number, entry)| {
                let text = self.data(entry);
                (number, String::from_utf8(text).expect("a mark").trim_matches(['\0', '\n']).into())
            })
            .collect()
    }

    /// Writes to `disk` what is certain to be on it after the first `until` entries, of which
    /// `done` are written already. Returns up to which one everything is.
    pub(crate) fn settle(&self, disk: &File, done: usize, until: usize) -> usize {
        let flush = self.entries[..until].iter().rposition(|entry| entry.flags & FLUSH > 0);
        let settled = flush.map_or(0, |flush| flush + 1).max(done);
        for entry in &self.entries[done..settled] {
            disk.write_all_at(&self.data(entry), entry.to).expect("write a disk");
        }
        settled
    }

    /// Writes to `disk` what may be on it besides: of the entries `from..until`, in pieces of
    /// `piece` bytes or whole where that is `None`, those for which `keep` holds.
    pub(crate) fn strew(
        &self,
        disk: &File,
        (from, until): (usize, usize),
        piece: Option<usize>,
        mut keep: impl FnMut() -> bool,
    ) -> usize {
        let mut lost = 0;
        for entry in &self.entries[from..until] {
            let data = self.data(entry);
            let size = piece.unwrap_or(data.len()).max(1);
            for (piece, at) in data.chunks(size).zip((entry.to..).step_by(size)) {
                if entry.flags & FUA > 0 || keep() {
                    disk.write_all_at(piece, at).expect("write a disk");
                } else {
                    lost += piece.len();
                }
            }
        }
        lost
    }

    fn data(&self, entry: &Entry) -> Vec<u8> {
        let mut data = vec![0; usize::try_from(entry.length).expect("a length")];
        self.file.read_exact_at(&mut data, entry.from).expect("read the log of a disk");
        data
    }
}
