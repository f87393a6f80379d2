//! Members that are not directories, and directories that the archive has.

use std::io::Read;

use berth_archive::{Device, Entries, Entry, shown};
use berth_types::{Error, Result};

use crate::attributes;
use crate::directories::inline;
use crate::draft::Draft;
use crate::format::{self, FileType, INODE, Inode, Layout, SLOT};
use crate::tree::{Directory, DirectoryId, Place};

/// The longest text of a symbolic link that the kernel takes.
const MAX_LINK: usize = 4095;

impl Draft {
    /// Makes a directory, or takes over the one that is there.
    pub(crate) fn add_directory(
        &mut self,
        entry: &Entry,
        parent: DirectoryId,
        name: &[u8],
    ) -> Result<()> {
        let there = self.tree.find(parent, name).map(|(_, place)| place);
        if let Some(Place::Directory(id)) = there {
            return self.describe(entry, id);
        }
        // The whiteout hid what lower layers have here, so the directory must.
        let opaque = matches!(there, Some(Place::Whiteout(_)));
        let directory = Directory { opaque, ..Directory::implicit(entry.mtime) };
        self.recent = None;
        let id = self.tree.make(parent, name, directory)?;
        self.describe(entry, id)
    }

    /// Writes a regular file.
    pub(crate) fn add_file<R: Read>(
        &mut self,
        entry: &Entry,
        parent: DirectoryId,
        name: &[u8],
        entries: &mut Entries<R>,
    ) -> Result<()> {
        let xattrs = attributes::encode(entry)?;
        let content = self.write_content(entry, xattrs.len(), entries)?;
        let inode = inode(entry, FileType::Regular, entry.size, content.layout);
        let number = self.put_inode(&inode, &xattrs, &content.trailer)?;
        let trailer = number * SLOT as u64 + (INODE + xattrs.len()) as u64;
        for (at, length) in content.of_archive {
            self.keep_place(trailer + at as u64, length as u64)?;
        }
        self.name(parent, name, Place::Inode(number, FileType::Regular))
    }

    /// Writes a symbolic link.
    pub(crate) fn add_symlink(
        &mut self,
        entry: &Entry,
        parent: DirectoryId,
        name: &[u8],
        text: &[u8],
    ) -> Result<()> {
        if text.len() > MAX_LINK {
            return Err(entry.refused("its symbolic link is longer than 4095 bytes"));
        }
        let xattrs = attributes::encode(entry)?;
        let (layout, trailer) = match inline(xattrs.len(), text.len()) {
            true => (Layout::Inline(0), text),
            false => {
                let address = self.volume.next_block();
                self.volume.append(text)?;
                self.volume.align()?;
                (Layout::Plain(address), &[][..])
            }
        };
        let mut inode = inode(entry, FileType::Symlink, text.len() as u64, layout);
        // Links have no permissions of their own: the kernel shows them with all.
        inode.mode = FileType::Symlink.mode() | 0o777;
        let number = self.put_inode(&inode, &xattrs, trailer)?;
        self.name(parent, name, Place::Inode(number, FileType::Symlink))
    }

    /// Writes a device. A character device 0:0 is a whiteout to overlayfs, whatever made it.
    pub(crate) fn add_device(
        &mut self,
        entry: &Entry,
        parent: DirectoryId,
        name: &[u8],
        kind: FileType,
        device: Device,
    ) -> Result<()> {
        let xattrs = attributes::encode(entry)?;
        let layout = Layout::Plain(format::device(device.major, device.minor));
        let number = self.put_inode(&inode(entry, kind, 0, layout), &xattrs, &[])?;
        let whiteout = kind == FileType::CharacterDevice && (device.major, device.minor) == (0, 0);
        let place = if whiteout { Place::Whiteout(number) } else { Place::Inode(number, kind) };
        self.name(parent, name, place)
    }

    /// Writes a named pipe.
    pub(crate) fn add_fifo(
        &mut self,
        entry: &Entry,
        parent: DirectoryId,
        name: &[u8],
    ) -> Result<()> {
        let xattrs = attributes::encode(entry)?;
        let inode = inode(entry, FileType::Fifo, 0, Layout::Plain(0));
        let number = self.put_inode(&inode, &xattrs, &[])?;
        self.name(parent, name, Place::Inode(number, FileType::Fifo))
    }

    /// Gives the file at `target` another name.
    pub(crate) fn add_link(
        &mut self,
        entry: &Entry,
        parent: DirectoryId,
        name: &[u8],
        target: &[u8],
    ) -> Result<()> {
        let slash = target.iter().rposition(|byte| *byte == b'/');
        let (target_parent, target_name) = match slash {
            Some(at) => (&target[..at], &target[at + 1..]),
            None => (&[][..], target),
        };
        if target_name.is_empty() {
            return Err(entry.refused("it is a hard link to the root"));
        }
        let holder = self.find(entry, target_parent)?;
        let found = holder.and_then(|directory| self.tree.find(directory, target_name));
        let (node, number, kind) = match found {
            None | Some((_, Place::Whiteout(_))) => return Err(not_in_layer(entry, target)),
            Some((_, Place::Directory(_))) => {
                return Err(entry.refused("it is a hard link to a directory"));
            }
            Some((node, Place::Inode(number, kind) | Place::Linked(number, kind))) => {
                (node, number, kind)
            }
        };
        if let Some((_, Place::Directory(replaced))) = self.tree.find(parent, name)
            && holder.is_some_and(|holder| self.tree.is_within(holder, replaced))
        {
            return Err(entry.refused("it is a hard link to what it replaces"));
        }
        self.tree.mark_linked(node);
        self.name(parent, name, Place::Linked(number, kind))
    }

    /// Hides what lower layers have as `name`. What is there is this layer's and stays; a
    /// directory becomes opaque, so that it shows nothing from below.
    pub(crate) fn white_out(
        &mut self,
        entry: &Entry,
        parent: DirectoryId,
        name: &[u8],
    ) -> Result<()> {
        self.tree.directories[parent as usize].whited_out = true;
        match self.tree.find(parent, name).map(|(_, place)| place) {
            None => {
                let mut inode = inode(entry, FileType::CharacterDevice, 0, Layout::Plain(0));
                (inode.mode, inode.uid, inode.gid) = (FileType::CharacterDevice.mode(), 0, 0);
                let number = self.put_inode(&inode, &[], &[])?;
                self.name(parent, name, Place::Whiteout(number))
            }
            Some(Place::Directory(id)) => {
                self.tree.directories[id as usize].opaque = true;
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    fn name(&mut self, parent: DirectoryId, name: &[u8], place: Place) -> Result<()> {
        if self.tree.find(parent, name).is_some() {
            // The path looked up last may lead through what is replaced.
            self.recent = None;
        }
        self.tree.set(parent, name, place)?;
        Ok(())
    }
}

fn inode(entry: &Entry, kind: FileType, size: u64, layout: Layout) -> Inode {
    Inode {
        mode: kind.mode() | entry.mode as u16,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        links: 1,
        size,
        layout,
    }
}

fn not_in_layer(entry: &Entry, target: &[u8]) -> Error {
    Error::failed_precondition(format!(
        "the layer's member {} is a hard link to {}, which is not in the layer",
        shown(&entry.path),
        shown(target)
    ))
}
