//! Directories: the blocks of their names, and where each is put.
//!
//! Names, `.` and `..` among them, are in the order of their bytes, as many in each block as fit;
//! a block's names do not depend on those of others, by which the kernel searches.

use berth_types::Result;

use crate::attributes::Sets;
use crate::format::{BLOCK, DIRENT, Dirent, FileType, INODE, ROOT as ROOT_OFFSET, SLOT};
use crate::shelf::Shelf;
use crate::tree::{DirectoryId, NodeId, Place, ROOT, Tree};

/// Whether the last `tail` bytes of an inode's data fit in one block with it and its attributes.
pub(crate) fn inline(xattrs: usize, tail: usize) -> bool {
    INODE + xattrs + tail <= BLOCK
}

/// The directories of a layer that are part of its tree: those that were replaced are not.
pub(crate) struct Directories {
    /// All nodes, by directory and name.
    order: Vec<NodeId>,
    /// The directories, each before those in it.
    pub(crate) reached: Vec<DirectoryId>,
    /// The numbers of inodes that may have several names, once for each name.
    pub(crate) linked: Vec<u64>,
    /// How many names that are not directories there are.
    pub(crate) names: u64,
}

/// What the names of a directory take.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shape {
    /// Full blocks.
    pub(crate) full: usize,
    /// Bytes in the last block.
    pub(crate) tail: usize,
    /// The last block follows the inode.
    pub(crate) inline: bool,
}

impl Shape {
    /// The length of the directory.
    pub(crate) fn size(self) -> u64 {
        (self.full * BLOCK + self.tail) as u64
    }

    /// The blocks that are not behind the inode.
    pub(crate) fn blocks(self) -> usize {
        self.full + usize::from(self.tail > 0 && !self.inline)
    }

    /// What follows the inode.
    pub(crate) fn trailer(self) -> usize {
        if self.inline { self.tail } else { 0 }
    }
}

impl Directories {
    /// Finds the directories of `tree`, in which nothing is looked up after that.
    pub(crate) fn of(tree: &mut Tree) -> Self {
        let order = tree.sort();
        let (mut reached, mut linked, mut names) = (Vec::new(), Vec::new(), 0);
        let mut waiting = vec![ROOT];
        while let Some(id) = waiting.pop() {
            reached.push(id);
            let start = waiting.len();
            for node in children(tree, &order, id) {
                match tree.place(node) {
                    Place::Directory(child) => waiting.push(child),
                    Place::Linked(number, _) => linked.push(number),
                    Place::Inode(..) | Place::Whiteout(_) => {}
                }
                names += u64::from(!matches!(tree.place(node), Place::Directory(_)));
            }
            waiting[start..].reverse();
        }
        linked.sort_unstable();
        Self { order, reached, linked, names }
    }

    /// Decides where each directory's inode is: the root's in the first block, others from the
    /// block behind the blocks of names on, which begin at `start`. Returns where all end.
    pub(crate) fn place(&self, tree: &mut Tree, sets: &Sets, start: u64) -> Result<u64> {
        let mut shelf = Shelf::default();
        let (mut blocks, mut end) = (0, 0);
        for id in &self.reached {
            let shape = self.shape(tree, sets, *id);
            let length =
                INODE + sets.get(tree.directories[*id as usize].xattrs).len() + shape.trailer();
            blocks += shape.blocks() as u64;
            if *id != ROOT {
                let offset = shelf.place(length, |count| {
                    end += count * BLOCK as u64;
                    Ok(end - count * BLOCK as u64)
                })?;
                tree.directories[*id as usize].offset = offset;
            }
        }
        let start = start + blocks * BLOCK as u64;
        for id in &self.reached {
            tree.directories[*id as usize].offset += start;
        }
        tree.directories[ROOT as usize].offset = ROOT_OFFSET as u64;
        Ok(start + end)
    }

    /// What the names of a directory take.
    pub(crate) fn shape(&self, tree: &Tree, sets: &Sets, id: DirectoryId) -> Shape {
        let mut shape = Shape::default();
        self.each_block(tree, id, |names| {
            let used = names.iter().map(|name| DIRENT + name.name.len()).sum();
            shape.full += usize::from(shape.tail > 0);
            shape.tail = used;
        });
        let xattrs = sets.get(tree.directories[id as usize].xattrs).len();
        let before = if id == ROOT { ROOT_OFFSET } else { 0 };
        shape.inline = inline(xattrs, before + shape.tail);
        shape
    }

    /// Hands the names of a directory to `each`, block by block.
    pub(crate) fn each_block<'a>(
        &self,
        tree: &'a Tree,
        id: DirectoryId,
        mut each: impl FnMut(&[Dirent<'a>]),
    ) {
        let mut block: Vec<Dirent<'a>> = Vec::new();
        let mut used = 0;
        let mut add = |dirent: Dirent<'a>| {
            let length = DIRENT + dirent.name.len();
            if used + length > BLOCK {
                each(&block);
                block.clear();
                used = 0;
            }
            used += length;
            block.push(dirent);
        };
        let itself =
            |name, id| Dirent { name, number: number(tree, id), kind: FileType::Directory };
        let own = [itself(&b"."[..], id), itself(&b".."[..], tree.parent(id))];
        let mut own = own.into_iter().peekable();
        for node in children(tree, &self.order, id) {
            let dirent = dirent(tree, node);
            while let Some(before) = own.next_if(|own| own.name < dirent.name) {
                add(before);
            }
            add(dirent);
        }
        own.for_each(&mut add);
        each(&block);
    }

    /// How many names a directory has from its directories: its own two, and `..` in each.
    pub(crate) fn links(&self, tree: &Tree, id: DirectoryId) -> u32 {
        let children = children(tree, &self.order, id);
        2 + children.filter(|node| matches!(tree.place(*node), Place::Directory(_))).count() as u32
    }
}

/// What a directory has, without the whiteouts that would hide nothing.
fn children<'a>(
    tree: &'a Tree,
    order: &'a [NodeId],
    id: DirectoryId,
) -> impl Iterator<Item = NodeId> + 'a {
    let directory = &tree.directories[id as usize];
    let bare = directory.bare;
    let nodes = &order[directory.first as usize..][..directory.count as usize];
    let shown = move |node: &NodeId| !bare || !matches!(tree.place(*node), Place::Whiteout(_));
    nodes.iter().copied().filter(shown)
}

fn dirent(tree: &Tree, node: NodeId) -> Dirent<'_> {
    let (number, kind) = match tree.place(node) {
        Place::Directory(id) => (number(tree, id), FileType::Directory),
        Place::Inode(number, kind) | Place::Linked(number, kind) => (number, kind),
        Place::Whiteout(number) => (number, FileType::CharacterDevice),
    };
    Dirent { name: tree.name(node), number, kind }
}

/// The number of a directory's inode.
fn number(tree: &Tree, id: DirectoryId) -> u64 {
    tree.directories[id as usize].offset / SLOT as u64
}
