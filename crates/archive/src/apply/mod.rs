//! Making a tree of a layer.

mod create;
mod metadata;
mod removal;
mod whiteout;

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use berth_types::{Digest, Result};

use crate::entries::Entries;
use crate::entry::{Entry, EntryKind};
use crate::role::Role;
use crate::tree::Tree;
use metadata::Times;

/// What a whiteout in the archive does to the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// It becomes overlayfs's: a character device 0:0, or the attribute `trusted.overlay.opaque`.
    /// For the upper directory of an overlay that holds nothing yet.
    #[default]
    Overlay,
    /// It removes what it names. For a tree that holds the lower layers.
    Remove,
}

/// What one layer may hold at most; beyond it, it is refused as a bomb.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Members, and as many directories again that members need but the archive doesn't have.
    pub entries: u64,
    /// Bytes of the uncompressed archive, and bytes of one file with its holes.
    pub bytes: u64,
}

impl Default for Limits {
    /// Half a million members, 64 GiB.
    fn default() -> Self {
        Self { entries: 1 << 19, bytes: 64 << 30 }
    }
}

/// How a layer is applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What whiteouts do.
    pub whiteouts: Whiteouts,
    /// The most that the layer may hold.
    pub limits: Limits,
}

/// What was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Length of the uncompressed archive, in bytes.
    pub size: u64,
    /// Digest of the uncompressed archive: the layer's `diff_id` in an image's configuration.
    pub diff_id: Digest,
    /// How many members the archive has.
    pub entries: u64,
    /// Directories that the archive has something in but not themselves, parents before children.
    /// Where there was none it was made, root's with mode 0755; with [`Whiteouts::Remove`], where
    /// there was one its times have changed. The root, an empty path, is one of them.
    pub implicit: Vec<PathBuf>,
    /// Directories in which it has whiteouts that became overlayfs's.
    pub whited_out: Vec<PathBuf>,
}

/// Makes a tree below `root` of the uncompressed layer `reader`, which is read to its end.
///
/// Nothing is synced: sync the filesystem once before a record names the tree. When it fails, the
/// tree holds a part of the layer and is of no use.
///
/// # Errors
/// - InvalidArgument: the archive is malformed or hostile;
/// - FailedPrecondition: it links to a file that only lower layers may have;
/// - ResourceExhausted: it passes a limit, or the disk is full;
/// - DataLoss: it is cut short;
/// - those of `reader`: an [`Error`](berth_types::Error) inside of an [`io::Error`](std::io::Error)
///   keeps its kind.
pub fn apply(reader: impl Read, root: BorrowedFd<'_>, options: &Options) -> Result<Applied> {
    let mut entries = Entries::new(reader, options.limits);
    let mut layer = Layer {
        tree: Tree::new(root, options.limits.entries)?,
        whiteouts: options.whiteouts,
        made: HashSet::new(),
        whited_out: BTreeSet::new(),
        times: Vec::new(),
    };
    while let Some(entry) = entries.next_entry()? {
        layer.add(&entry, &mut entries)?;
    }
    layer.set_directory_times()?;
    let count = entries.count();
    let (diff_id, size) = entries.finish()?;
    let paths = |set: BTreeSet<Vec<u8>>| {
        set.into_iter().map(|path| OsString::from_vec(path).into()).collect()
    };
    let (implicit, whited_out) = (paths(layer.tree.implicit), paths(layer.whited_out));
    Ok(Applied { size, diff_id, entries: count, implicit, whited_out })
}

/// A layer being applied.
struct Layer {
    tree: Tree,
    whiteouts: Whiteouts,
    /// With [`Whiteouts::Remove`]: the paths of this layer, which its whiteouts don't concern.
    made: HashSet<Vec<u8>>,
    /// With [`Whiteouts::Overlay`]: the directories that have whiteouts.
    whited_out: BTreeSet<Vec<u8>>,
    /// Inodes and times of directories, set when nothing more is made in them.
    times: Vec<(Vec<u8>, u64, Times)>,
}

impl Layer {
    fn add<R: Read>(&mut self, entry: &Entry, entries: &mut Entries<R>) -> Result<()> {
        match entry.role()? {
            Role::Root => self.add_root(entry),
            Role::Member { parent, name } => self.add_member(entry, parent, name, entries),
            Role::Whiteout { parent, name } => self.white_out(entry, parent, name),
            Role::Opaque { parent } => self.make_opaque(parent),
            Role::Nothing => Ok(()),
        }
    }

    fn add_member<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &[u8],
        entries: &mut Entries<R>,
    ) -> Result<()> {
        self.note_change(parent);
        let parent = self.tree.directory(parent)?;
        match &entry.kind {
            EntryKind::File => self.add_file(entry, &parent, name, entries)?,
            EntryKind::Directory => self.add_directory(entry, &parent, name)?,
            EntryKind::HardLink(target) => self.add_link(entry, &parent, name, target)?,
            EntryKind::Symlink(_)
            | EntryKind::CharacterDevice(_)
            | EntryKind::BlockDevice(_)
            | EntryKind::Fifo => self.add_node(entry, &parent, name)?,
        }
        self.note_made(&entry.path);
        Ok(())
    }

    fn note_made(&mut self, path: &[u8]) {
        if self.whiteouts == Whiteouts::Remove {
            self.made.insert(path.to_vec());
        }
    }

    /// Notes that something in the directory `path` changes. Where lower layers are in the tree,
    /// this need not be one that the archive has, or that is made because it doesn't.
    fn note_change(&mut self, path: &[u8]) {
        if self.whiteouts == Whiteouts::Remove && !self.made.contains(path) {
            self.tree.implicit.insert(path.to_vec());
        }
    }

    fn add_root(&mut self, entry: &Entry) -> Result<()> {
        let root = self.tree.directory(&[])?;
        self.set_directory(entry, &root)?;
        self.tree.implicit.remove(&entry.path);
        self.note_made(&entry.path);
        self.tree.forget();
        Ok(())
    }
}
