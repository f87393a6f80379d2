//! The names of a layer: all that waits in memory for its end, so each byte counts.
//!
//! ```text
//! names        length, bytes, length, bytes, …
//! nodes        16 bytes each: directory, name, what is there
//! table        4 bytes for each node, and as much again to spare: nodes by directory and name
//! directories  what a directory is; its number is part of its childrens' names
//! ```
//! A directory that is replaced keeps its number, so that what was in it is never found again.

use std::hash::{BuildHasher, RandomState};

use berth_archive::Time;
use berth_types::{Error, Result};

use crate::format::FileType;

/// The number of a directory.
pub(crate) type DirectoryId = u32;

/// The number of a node.
pub(crate) type NodeId = u32;

/// The root's number.
pub(crate) const ROOT: DirectoryId = 0;

/// What has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A directory.
    Directory(DirectoryId),
    /// An inode already written: its number and what it is.
    Inode(u64, FileType),
    /// Likewise, one that may have several names.
    Linked(u64, FileType),
    /// Overlayfs's whiteout, whose inode is already written.
    Whiteout(u64),
}

/// A name.
struct Node {
    directory: DirectoryId,
    /// Where its name is.
    name: u32,
    place: Packed,
}

/// A [`Place`] in eight bytes: what it is in the upper one, its number in the others, of which an
/// image's largest inode number takes 39 bits.
#[derive(Clone, Copy)]
struct Packed(u64);

const NUMBER: u64 = (1 << 56) - 1;
const LINKED: u8 = 0x10;
const WHITEOUT: u8 = 0x20;

impl Packed {
    fn new(place: Place) -> Self {
        let (tag, number) = match place {
            Place::Directory(id) => (FileType::Directory as u8, id.into()),
            Place::Inode(number, kind) => (kind as u8, number),
            Place::Linked(number, kind) => (kind as u8 | LINKED, number),
            Place::Whiteout(number) => (WHITEOUT, number),
        };
        Self(u64::from(tag) << 56 | number)
    }

    fn get(self) -> Place {
        let (tag, number) = ((self.0 >> 56) as u8, self.0 & NUMBER);
        let kind = match tag & !LINKED {
            WHITEOUT => return Place::Whiteout(number),
            2 => return Place::Directory(number as DirectoryId),
            3 => FileType::CharacterDevice,
            4 => FileType::BlockDevice,
            5 => FileType::Fifo,
            7 => FileType::Symlink,
            _ => FileType::Regular,
        };
        match tag & LINKED != 0 {
            true => Place::Linked(number, kind),
            false => Place::Inode(number, kind),
        }
    }
}

/// A directory.
#[derive(Clone, Copy)]
pub(crate) struct Directory {
    /// Its name; the root has none.
    pub(crate) node: NodeId,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// The number of its attributes.
    pub(crate) xattrs: u32,
    /// The archive has something in it but not itself.
    pub(crate) implicit: bool,
    /// It hides what lower layers have in it.
    pub(crate) opaque: bool,
    /// It has whiteouts.
    pub(crate) whited_out: bool,
    /// Nothing shows through it, so its whiteouts are left out.
    pub(crate) bare: bool,
    /// Its children, once they are sorted.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// The offset of its inode, once it has one.
    pub(crate) offset: u64,
}

impl Directory {
    /// A directory that the archive doesn't have, as it would be in an empty tree.
    pub(crate) fn implicit(mtime: Time) -> Self {
        Self {
            node: NodeId::MAX,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime,
            xattrs: 0,
            implicit: true,
            opaque: false,
            whited_out: false,
            bare: false,
            first: 0,
            count: 0,
            offset: 0,
        }
    }
}

/// The tree of a layer.
pub(crate) struct Tree {
    names: Vec<u8>,
    nodes: Vec<Node>,
    /// Nodes by hash, each plus one; zero is free.
    table: Vec<u32>,
    hasher: RandomState,
    pub(crate) directories: Vec<Directory>,
}

impl Tree {
    /// A tree with nothing but a root.
    pub(crate) fn new() -> Self {
        Self {
            names: Vec::new(),
            nodes: Vec::new(),
            table: vec![0; 64],
            hasher: RandomState::new(),
            directories: vec![Directory::implicit(Time::default())],
        }
    }

    /// What `directory` has as `name`.
    pub(crate) fn find(&self, directory: DirectoryId, name: &[u8]) -> Option<(NodeId, Place)> {
        let node = self.table[self.slot(directory, name)].checked_sub(1)?;
        Some((node, self.nodes[node as usize].place.get()))
    }

    /// Gives `name` in `directory` to `place`. Whatever had it is gone.
    ///
    /// # Errors
    /// ResourceExhausted when there are too many names.
    pub(crate) fn set(
        &mut self,
        directory: DirectoryId,
        name: &[u8],
        place: Place,
    ) -> Result<NodeId> {
        let place = Packed::new(place);
        if self.table.len() / 4 * 3 <= self.nodes.len() {
            self.grow();
        }
        let slot = self.slot(directory, name);
        if let Some(node) = self.table[slot].checked_sub(1) {
            self.nodes[node as usize].place = place;
            return Ok(node);
        }
        let too_many = || Error::resource_exhausted("the layer has too many names");
        let node = NodeId::try_from(self.nodes.len()).map_err(|_| too_many())?;
        let start = u32::try_from(self.names.len()).map_err(|_| too_many())?;
        self.names.push(name.len() as u8);
        self.names.extend_from_slice(name);
        self.nodes.push(Node { directory, name: start, place });
        self.table[slot] = node + 1;
        Ok(node)
    }

    /// Makes `directory` as `name` in `parent`.
    ///
    /// # Errors
    /// As for [`Tree::set`].
    pub(crate) fn make(
        &mut self,
        parent: DirectoryId,
        name: &[u8],
        directory: Directory,
    ) -> Result<DirectoryId> {
        let id = self.directories.len() as DirectoryId;
        let node = self.set(parent, name, Place::Directory(id))?;
        self.directories.push(Directory { node, ..directory });
        Ok(id)
    }

    /// What a node is.
    pub(crate) fn place(&self, node: NodeId) -> Place {
        self.nodes[node as usize].place.get()
    }

    /// Notes that a node's inode has other names.
    pub(crate) fn mark_linked(&mut self, node: NodeId) {
        if let Place::Inode(number, kind) = self.place(node) {
            self.nodes[node as usize].place = Packed::new(Place::Linked(number, kind));
        }
    }

    /// A node's name.
    pub(crate) fn name(&self, node: NodeId) -> &[u8] {
        let start = self.nodes[node as usize].name as usize;
        &self.names[start + 1..start + 1 + usize::from(self.names[start])]
    }

    /// The directory that holds `directory`; the root holds itself.
    pub(crate) fn parent(&self, directory: DirectoryId) -> DirectoryId {
        let node = self.directories[directory as usize].node;
        self.nodes.get(node as usize).map_or(ROOT, |node| node.directory)
    }

    /// Whether `directory` is `other`, or somewhere in it.
    pub(crate) fn is_within(&self, mut directory: DirectoryId, other: DirectoryId) -> bool {
        while directory != other && directory != ROOT {
            directory = self.parent(directory);
        }
        directory == other
    }

    /// Sorts the nodes by directory and name, and tells each directory which are its own. Nothing
    /// is found or made after that.
    pub(crate) fn sort(&mut self) -> Vec<NodeId> {
        self.table = Vec::new();
        let mut order: Vec<NodeId> = (0..self.nodes.len() as NodeId).collect();
        order.sort_unstable_by(|a, b| {
            let directory = |node: NodeId| self.nodes[node as usize].directory;
            directory(*a).cmp(&directory(*b)).then_with(|| self.name(*a).cmp(self.name(*b)))
        });
        for (at, node) in order.iter().enumerate() {
            let directory = self.nodes[*node as usize].directory;
            let directory = &mut self.directories[directory as usize];
            if directory.count == 0 {
                directory.first = at as u32;
            }
            directory.count += 1;
        }
        order
    }

    /// Where in the table the name is, or would be.
    fn slot(&self, directory: DirectoryId, name: &[u8]) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = self.hasher.hash_one((directory, name)) as usize & mask;
        while let Some(node) = self.table[slot].checked_sub(1) {
            if self.nodes[node as usize].directory == directory && self.name(node) == name {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let size = self.table.len() * 2;
        self.table = Vec::new();
        self.table.resize(size, 0);
        for node in 0..self.nodes.len() as NodeId {
            let slot = self.slot(self.nodes[node as usize].directory, self.name(node));
            self.table[slot] = node + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_what_was_set() {
        let mut tree = Tree::new();
        for number in 0..10_000_u64 {
            let (directory, name) = ((number % 7) as DirectoryId, format!("n{}", number / 7));
            let place = Place::Inode(number << 20, FileType::Symlink);
            tree.set(directory, name.as_bytes(), place).expect("set");
        }
        for number in (0..10_000_u64).step_by(3) {
            let (directory, name) = ((number % 7) as DirectoryId, format!("n{}", number / 7));
            let node = tree.set(directory, name.as_bytes(), Place::Whiteout(number)).expect("set");
            assert_eq!(tree.name(node), name.as_bytes());
        }
        for number in 0..10_000_u64 {
            let (directory, name) = ((number % 7) as DirectoryId, format!("n{}", number / 7));
            let place = match number % 3 {
                0 => Place::Whiteout(number),
                _ => Place::Inode(number << 20, FileType::Symlink),
            };
            let found = tree.find(directory, name.as_bytes()).map(|(_, place)| place);
            assert_eq!(found, Some(place));
        }
        assert_eq!(tree.find(8, b"n0"), None);
        assert_eq!(tree.nodes.len(), 10_000);
    }
}
