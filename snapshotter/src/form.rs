//! The form that layers have, which is where snapshotters differ.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use berth_types::{Fault, Result, ResultExt};

use crate::contract::{CommitOptions, Kind, Mount};
use crate::records::{Commit, Record};

/// The form in which layers are kept below a directory. Ids name snapshots and their directories.
#[async_trait]
pub trait Form: Send + Sync + Sized + 'static {
    /// The name of the snapshotter.
    const NAME: &'static str;

    /// The tables of its records: those, and which have which parent.
    const TABLES: (&'static str, &'static str);

    /// Whether a layer has only what changed against those below it.
    const STACKED: bool = true;

    /// The form of layers below `directory`.
    fn new(directory: &Path) -> Self;

    /// Sets right what a crash left of a snapshot that has a record and a directory.
    fn recover(&self, _record: &Record) -> io::Result<()> {
        Ok(())
    }

    /// Hears at the start of a snapshot that uses the layers `parents`.
    fn note_use(&self, _id: u64, _parents: &[u64]) {}

    /// Hears at the start of every directory, recorded or not, after all uses.
    fn found(&self, _id: u64) -> Result<()> {
        Ok(())
    }

    /// Makes the layers `parents`, the uppermost first, usable for `id`.
    async fn hold(&self, _id: u64, _parents: Vec<u64>) -> Result<()> {
        Ok(())
    }

    /// The opposite of [`hold`](Self::hold).
    fn release(&self, _id: u64) {}

    /// The same for a snapshot that is gone, which itself can't be used any more.
    async fn forget(&self, _id: u64) -> Result<()> {
        Ok(())
    }

    /// Gives back what is kept for those who may come.
    async fn tidy(&self) -> Result<()> {
        Ok(())
    }

    /// Fills the directories, just made, of a new snapshot with what it has of its parent.
    async fn fill(&self, _id: u64, _kind: Kind, _parent: Option<u64>) -> Result<()> {
        Ok(())
    }

    /// The mounts of an active snapshot or view whose parents are `parents`, nearest first. Kinds
    /// and options are those that containerd's snapshotter of the name gives, which clients parse.
    fn mounts(&self, record: &Record, parents: &[Record]) -> Vec<Mount>;

    /// The directory in which a snapshot's files are: of a layer, after [`hold`](Self::hold).
    fn files(&self, record: &Record) -> PathBuf;

    /// Opens that directory, held or not.
    fn open(&self, record: &Record) -> Result<OwnedFd> {
        let files = self.files(record);
        File::open(&files).map(OwnedFd::from).context(|| format!("open {}", files.display()))
    }

    /// Where a snapshot's layer is as an image, or may be put; see [`Snapshotter::image`].
    fn image(&self, _id: u64) -> Option<PathBuf> {
        None
    }

    /// What is wrong with what a snapshot has. Blocks on the disk.
    fn check(&self, record: &Record) -> Option<Fault> {
        check_directory(&self.files(record))
    }

    /// Makes a layer of an active snapshot, and puts it on the disk. Its record follows. One at a
    /// time for each snapshot.
    async fn commit(&self, record: &Record, options: &CommitOptions) -> Result<Commit>;

    /// Hears how a [`commit`](Self::commit) ended: with a record, or not.
    async fn committed(&self, _id: u64, _done: bool) -> Result<()> {
        Ok(())
    }
}

/// A directory's files are nowhere recorded: it is there or not.
pub(crate) fn check_directory(path: &Path) -> Option<Fault> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some(Fault::Differs),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Fault::Missing),
        Err(error) => Some(Fault::Unreadable(error.to_string())),
    }
}
