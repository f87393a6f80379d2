//! Completing an image: directories, link counts, superblock.

use std::fs::File;

use berth_types::{Error, Result};

use crate::attributes;
use crate::directories::{Directories, Shape};
use crate::draft::Draft;
use crate::format::{
    self, BLOCK, FileType, INODE, Inode, LINKS, Layout, ROOT as ROOT_OFFSET, SLOT, Superblock,
};
use crate::recipe::{LOCATOR, Made, from_hex};
use crate::tree::{DirectoryId, ROOT};

/// A complete image.
#[derive(Debug)]
pub struct Image {
    /// The file, not synced.
    pub file: File,
    /// Its length in bytes, a multiple of 4096. Holes take no space in it.
    pub length: u64,
    /// Files, directories and other inodes in it.
    pub inodes: u64,
}

impl Draft {
    /// Completes the image. Nothing is synced: sync the file before a record names it.
    ///
    /// # Errors
    /// ResourceExhausted when the disk is full or the root has more attributes than the first
    /// block holds, and those of the disk.
    pub fn seal(mut self) -> Result<Image> {
        self.make_opaque()?;
        let directories = Directories::of(&mut self.tree);
        let start = self.volume.end();
        let end = directories.place(&mut self.tree, &self.sets, start)?;
        self.write_names(&directories)?;
        let root = self.write_directories(&directories, start)?;
        self.volume.extend_to(end)?;
        let links = self.write_links(&directories.linked)?;
        let inodes = directories.reached.len() as u64 + directories.names - links;
        self.complete(&root, inodes)
    }

    /// Marks directories as overlayfs finds them.
    fn make_opaque(&mut self) -> Result<()> {
        for directory in &mut self.tree.directories {
            if directory.opaque {
                let xattrs = attributes::with_opaque(self.sets.get(directory.xattrs));
                directory.xattrs = self.sets.keep(&xattrs)?;
            }
        }
        Ok(())
    }

    /// Writes the blocks of names that don't follow an inode.
    fn write_names(&mut self, directories: &Directories) -> Result<()> {
        for id in &directories.reached {
            let count = directories.shape(&self.tree, &self.sets, *id).blocks();
            let mut written = 0;
            let mut result = Ok(());
            directories.each_block(&self.tree, *id, |names| {
                if written < count && result.is_ok() {
                    let mut block = Vec::with_capacity(BLOCK);
                    format::encode_dirents(names, &mut block);
                    block.resize(BLOCK, 0);
                    result = self.volume.append(&block);
                }
                written += 1;
            });
            result?;
        }
        Ok(())
    }

    /// Writes the inodes of all directories but the root, and gives back what the root's place
    /// holds. The blocks of names begin at `start`.
    fn write_directories(&mut self, directories: &Directories, start: u64) -> Result<Vec<u8>> {
        let mut address = (start / BLOCK as u64) as u32;
        let mut root = Vec::new();
        for id in &directories.reached {
            let shape = directories.shape(&self.tree, &self.sets, *id);
            let record = self.directory_record(directories, *id, shape, address);
            address += shape.blocks() as u32;
            if *id == ROOT {
                root = record;
                continue;
            }
            let offset = self.tree.directories[*id as usize].offset;
            self.volume.extend_to(offset + record.len() as u64)?;
            self.volume.write_at(offset, &record)?;
        }
        Ok(root)
    }

    /// A directory's inode, its attributes, and its last block where that is not elsewhere.
    fn directory_record(
        &mut self,
        directories: &Directories,
        id: DirectoryId,
        shape: Shape,
        address: u32,
    ) -> Vec<u8> {
        let directory = self.tree.directories[id as usize];
        let xattrs = self.sets.get(directory.xattrs);
        let address = if shape.blocks() == 0 { 0 } else { address };
        let inode = Inode {
            mode: FileType::Directory.mode() | directory.mode,
            uid: directory.uid,
            gid: directory.gid,
            mtime: directory.mtime,
            links: directories.links(&self.tree, id),
            size: shape.size(),
            layout: if shape.inline { Layout::Inline(address) } else { Layout::Plain(address) },
        };
        self.inodes = self.inodes.saturating_add(1);
        let mut record = inode.encode(xattrs.len(), self.inodes).to_vec();
        record.extend_from_slice(xattrs);
        let mut number = 0;
        directories.each_block(&self.tree, id, |names| {
            if number == shape.full && shape.inline {
                format::encode_dirents(names, &mut record);
            }
            number += 1;
        });
        record
    }

    /// Sets the link counts of inodes with several names; how many names are not their inode's
    /// first.
    fn write_links(&mut self, linked: &[u64]) -> Result<u64> {
        let mut more = 0;
        for names in linked.chunk_by(|a, b| a == b).filter(|names| names.len() > 1) {
            more += names.len() as u64 - 1;
            let offset = names[0] * SLOT as u64 + LINKS as u64;
            self.volume.write_at(offset, &(names.len() as u32).to_le_bytes())?;
        }
        Ok(more)
    }

    fn complete(self, root: &[u8], inodes: u64) -> Result<Image> {
        let mut first = [0; BLOCK];
        let place = first.get_mut(ROOT_OFFSET..ROOT_OFFSET + root.len()).ok_or_else(|| {
            Error::resource_exhausted(format!(
                "the attributes of the layer's root take too much space, over {} bytes",
                BLOCK - ROOT_OFFSET - INODE
            ))
        })?;
        place.copy_from_slice(root);
        let digest = from_hex(self.diff_id.hex())?;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&digest[..16]);
        if let Some(locator) = &self.locator {
            let made = Made { size: self.size, diff_id: self.diff_id.clone() };
            first[..LOCATOR].copy_from_slice(&locator.encode(&made)?);
        }
        let length = self.volume.end();
        let blocks = (length / BLOCK as u64) as u32;
        Superblock { inodes, blocks, uuid, chunked: self.chunked }.encode(&mut first);
        Ok(Image { file: self.volume.complete(&first)?, length, inodes })
    }
}
