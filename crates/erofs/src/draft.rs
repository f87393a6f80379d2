//! A layer being written.

use std::fs::File;
use std::io::Read;

use berth_archive::{Entries, Entry, EntryKind, Limits, Role, Time};
use berth_types::{Digest, Error, Result};

use crate::attributes::{self, Sets};
use crate::directories::inline;
use crate::format::{BLOCK, FileType, INODE, Inode, Layout, SLOT};
use crate::recipe::{Locator, Recipe};
use crate::shelf::Shelf;
use crate::tree::{DirectoryId, ROOT, Tree};
use crate::volume::Volume;

/// The longest name that the kernel takes.
pub(crate) const MAX_NAME: usize = 255;

/// A layer that was read to its end, and whose image lacks its directories.
pub struct Draft {
    pub(crate) volume: Volume,
    pub(crate) shelf: Shelf,
    pub(crate) tree: Tree,
    pub(crate) sets: Sets,
    /// How many directories may yet be made that the archive doesn't have.
    pub(crate) spare: u64,
    /// Inodes written so far.
    pub(crate) inodes: u32,
    /// Some file has holes.
    pub(crate) chunked: bool,
    /// The path looked up last, to which most members belong.
    pub(crate) recent: Option<(Vec<u8>, DirectoryId)>,
    /// The time of the current member, which what is made because of it gets.
    pub(crate) time: Time,
    pub(crate) size: u64,
    pub(crate) diff_id: Digest,
    pub(crate) entries: u64,
    /// What the image lacks of the archive, if that is kept.
    pub(crate) recipe: Option<Recipe>,
    /// The same, once it is complete.
    pub(crate) locator: Option<Locator>,
}

/// Writes what an image has of the uncompressed layer `reader`, which is read to its end, except
/// for the directories, to the empty `file`. Whiteouts become overlayfs's.
///
/// When it fails, the file holds a part of the layer and is of no use.
///
/// # Errors
/// Those of [`apply`](berth_archive::apply()), for the same layers: InvalidArgument,
/// FailedPrecondition, ResourceExhausted, DataLoss, and those of `reader`.
pub fn write(reader: impl Read, file: File, limits: Limits) -> Result<Draft> {
    Draft::new(file, limits, None).take(Entries::new(reader, limits))
}

/// The same, and keeps what else it takes to make the archive again from the image: see
/// [`Archive`](crate::Archive).
///
/// # Errors
/// As for [`write()`].
pub fn write_restorable(reader: impl Read, file: File, limits: Limits) -> Result<Draft> {
    Draft::new(file, limits, Some(Recipe::new()?)).take(Entries::new(reader, limits).noting())
}

impl Draft {
    fn new(file: File, limits: Limits, recipe: Option<Recipe>) -> Self {
        Self {
            volume: Volume::new(file),
            shelf: Shelf::default(),
            tree: Tree::new(),
            sets: Sets::default(),
            spare: limits.entries,
            inodes: 0,
            chunked: false,
            recent: None,
            time: Time::default(),
            size: 0,
            diff_id: Digest::of(b""),
            entries: 0,
            recipe,
            locator: None,
        }
    }

    /// Writes all members.
    fn take<R: Read>(mut self, mut entries: Entries<R>) -> Result<Self> {
        while let Some(entry) = entries.next_entry()? {
            self.keep_literal(&entries.take_passed())?;
            self.add(&entry, &mut entries)?;
        }
        self.keep_literal(&entries.take_passed())?;
        self.entries = entries.count();
        (self.diff_id, self.size) = entries.finish_with(|rest| self.keep_literal(rest))?;
        if let Some(recipe) = self.recipe.take() {
            self.locator = Some(recipe.finish(&mut self.volume)?);
        }
        Ok(self)
    }

    /// Keeps bytes of the archive that the image will not have.
    fn keep_literal(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.recipe {
            Some(recipe) => {
                recipe.literal(bytes)?;
                recipe.spill(&mut self.volume)
            }
            None => Ok(()),
        }
    }

    /// Keeps the data of a member that is no file of the image.
    fn keep_data<R: Read>(&mut self, entries: &mut Entries<R>) -> Result<()> {
        entries.write_data(|_, bytes| self.keep_literal(bytes))
    }

    /// Notes that the next `length` bytes of the archive are those that the image has at `offset`.
    pub(crate) fn keep_place(&mut self, offset: u64, length: u64) -> Result<()> {
        self.recipe.as_mut().map_or(Ok(()), |recipe| recipe.copy(offset, length))
    }

    /// Length of the uncompressed archive, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Digest of the uncompressed archive: the layer's `diff_id` in an image's configuration.
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    /// How many members the archive has.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Puts what was written so far on the disk, so that less is left for the end.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn sync(&self) -> Result<()> {
        self.volume.sync()
    }

    fn add<R: Read>(&mut self, entry: &Entry, entries: &mut Entries<R>) -> Result<()> {
        self.time = entry.mtime;
        if entries.count() == 1 {
            self.tree.directories[ROOT as usize].mtime = entry.mtime;
        }
        match entry.role()? {
            Role::Root => self.describe(entry, ROOT),
            Role::Member { parent, name } => self.add_member(entry, parent, name, entries),
            Role::Whiteout { parent, name } => {
                let directory = self.holder(entry, parent, name)?;
                self.white_out(entry, directory, name)?;
                self.keep_data(entries)
            }
            Role::Opaque { parent } => {
                let directory = self.directory(entry, parent)?;
                self.tree.directories[directory as usize].opaque = true;
                self.keep_data(entries)
            }
            Role::Nothing => self.keep_data(entries),
        }
    }

    fn add_member<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &[u8],
        entries: &mut Entries<R>,
    ) -> Result<()> {
        let directory = self.holder(entry, parent, name)?;
        match &entry.kind {
            EntryKind::File => self.add_file(entry, directory, name, entries),
            EntryKind::Directory => self.add_directory(entry, directory, name),
            EntryKind::HardLink(target) => self.add_link(entry, directory, name, target),
            EntryKind::Symlink(text) => self.add_symlink(entry, directory, name, text),
            EntryKind::CharacterDevice(device) => {
                self.add_device(entry, directory, name, FileType::CharacterDevice, *device)
            }
            EntryKind::BlockDevice(device) => {
                self.add_device(entry, directory, name, FileType::BlockDevice, *device)
            }
            EntryKind::Fifo => self.add_fifo(entry, directory, name),
        }
    }

    /// The directory that is to hold `name`.
    fn holder(&mut self, entry: &Entry, parent: &[u8], name: &[u8]) -> Result<DirectoryId> {
        if name.len() > MAX_NAME {
            return Err(entry.refused("it has a name of more than 255 bytes"));
        }
        self.directory(entry, parent)
    }

    /// Gives a directory what `entry` says of it, which joins what it has.
    pub(crate) fn describe(&mut self, entry: &Entry, id: DirectoryId) -> Result<()> {
        let xattrs = attributes::encode(entry)?;
        let directory = &mut self.tree.directories[id as usize];
        directory.mode = entry.mode as u16;
        directory.uid = entry.uid;
        directory.gid = entry.gid;
        directory.mtime = entry.mtime;
        directory.implicit = false;
        if !xattrs.is_empty() {
            let merged = attributes::merge(self.sets.get(directory.xattrs), &xattrs);
            directory.xattrs = self.sets.keep(&merged)?;
        }
        Ok(())
    }

    /// Writes an inode with what follows it; its number.
    pub(crate) fn put_inode(
        &mut self,
        inode: &Inode,
        xattrs: &[u8],
        trailer: &[u8],
    ) -> Result<u64> {
        debug_assert!(
            !matches!(inode.layout, Layout::Inline(_)) || inline(xattrs.len(), trailer.len())
        );
        let length = INODE + xattrs.len() + trailer.len();
        let volume = &mut self.volume;
        let offset = self.shelf.place(length, |blocks| {
            let offset = volume.end();
            volume.extend_to(offset + blocks * BLOCK as u64)?;
            Ok(offset)
        })?;
        self.inodes = self
            .inodes
            .checked_add(1)
            .ok_or_else(|| Error::resource_exhausted("the layer has too many files"))?;
        let mut record = Vec::with_capacity(length);
        record.extend_from_slice(&inode.encode(xattrs.len(), self.inodes));
        record.extend_from_slice(xattrs);
        record.extend_from_slice(trailer);
        self.volume.write_at(offset, &record)?;
        Ok(offset / SLOT as u64)
    }
}
