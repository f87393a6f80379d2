//! The room that the file has on its disk, so that a full disk can be emptied through berth.
//!
//! ```text
//! file    ├──── pages, used or free ────┤      every block of it is allocated
//! blocks  ├─────────────────────────────┼── RESERVE ──┤
//! ```
//!
//! Removing a record writes pages before it frees some, so removals need room where nobody else
//! takes it: blocks behind the end of the file. Writers that may not use them are refused before
//! the file would grow into them; those that may let it grow there, and until the disk has given
//! the reserve back, only such writers are let through.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Many times what a transaction of removals writes; their pages are used again by the next ones.
const RESERVE: u64 = 1 << 20;

/// What others may write to the disk between a look at it and the end of a transaction.
const MARGIN: u64 = 64 << 20;

/// What is known of the room, for the writer and the file's backend.
pub(crate) struct Room {
    file: File,
    /// Whether all blocks are there.
    is_whole: AtomicBool,
    /// Whether the present writer must leave the reserve alone.
    is_guarded: AtomicBool,
}

impl Room {
    fn new(file: File) -> io::Result<Self> {
        let room =
            Self { file, is_whole: AtomicBool::new(false), is_guarded: AtomicBool::new(false) };
        let length = room.file.metadata()?.len();
        if let Err(error) = room.fill(length) {
            tracing::warn!(%error, "the database has no reserve: only removals work");
        }
        Ok(room)
    }

    /// Whether the reserve is there; a used one is given back if the disk has the blocks.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Relaxed)
            || self.file.metadata().and_then(|file| self.fill(file.len())).is_ok()
    }

    /// Whether the disk may fail to take what the file grows by: redb doubles it.
    pub(crate) fn is_tight(&self) -> bool {
        let free = rustix::fs::fstatvfs(&self.file).map(|disk| disk.f_bavail * disk.f_frsize);
        let length = self.file.metadata().map_or(0, |file| file.len());
        free.is_ok_and(|free| free < length + RESERVE + MARGIN)
    }

    /// Runs `run` without the reserve, if `guarded`.
    pub(crate) fn guard<T>(&self, guarded: bool, run: impl FnOnce() -> T) -> T {
        self.is_guarded.store(guarded, Ordering::Relaxed);
        let result = run();
        self.is_guarded.store(false, Ordering::Relaxed);
        result
    }

    /// Allocates all blocks of a file of this length, and the reserve. Filesystems that can't
    /// promise blocks have no reserve, and are used as they are.
    fn fill(&self, length: u64) -> io::Result<()> {
        let filled = self.check(length).and_then(|()| {
            rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length + RESERVE)
        });
        let filled = match filled {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            filled => filled.map_err(io::Error::from),
        };
        self.is_whole.store(filled.is_ok(), Ordering::Relaxed);
        filled
    }

    /// Asks before it takes: what an allocation got before it failed is not given back.
    fn check(&self, length: u64) -> rustix::io::Result<()> {
        let disk = rustix::fs::fstatvfs(&self.file)?;
        let has = rustix::fs::fstat(&self.file)?.st_blocks as u64 * 512;
        let lacks = (length + RESERVE).saturating_sub(has);
        if lacks > disk.f_bfree.saturating_mul(disk.f_frsize) {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }
}

/// The file, which keeps its room when its length changes.
pub(crate) struct Roomy {
    file: FileBackend,
    room: Arc<Room>,
}

impl Roomy {
    /// # Errors
    /// Those of the disk.
    pub(crate) fn new(file: File) -> Result<Self, redb::Error> {
        let room = Arc::new(Room::new(file.try_clone()?)?);
        Ok(Self { file: FileBackend::new(file)?, room })
    }

    pub(crate) fn room(&self) -> Arc<Room> {
        self.room.clone()
    }
}

impl fmt::Debug for Roomy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl StorageBackend for Roomy {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if length <= self.file.len()? {
            self.file.set_len(length)?;
            // What a shorter file lacks is tried for again by the next writer.
            let _ = self.room.fill(length);
            return Ok(());
        }
        match self.room.fill(length) {
            Err(error) if self.room.is_guarded.load(Ordering::Relaxed) => Err(error),
            _ => self.file.set_len(length),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
