//! Making a layer of what changed.
//!
//! The layer is in the form of the OCI image specification (`layer.md`): whiteouts as files named
//! `.wh.`, and every changed file with the directories that lead to it. Names are in order, so the
//! same trees make the same layer. Sockets are left out, as no archive can hold one.

mod node;
mod trees;
mod upper;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use berth_types::{Result, ResultExt};
use rustix::fs::{Dir, Stat};

use crate::entry::{Entry, EntryKind, Time, shown};
use crate::tree::{Directory, fault};
use crate::write::Writer;

/// What the names of whiteouts begin with.
const WHITEOUT: &[u8] = b".wh.";

/// The name of the whiteout of all that lower layers have in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Writes what makes `upper` of `lower` as an uncompressed layer; all of `upper` without `lower`.
/// Both are whole trees. Files of the same size, owner, mode and time are taken as the same if
/// the time has a fraction, else their bytes are compared.
///
/// # Errors
/// Aborted when a file is written to meanwhile; those of the filesystem and of `output`.
pub fn diff(
    lower: Option<BorrowedFd<'_>>,
    upper: BorrowedFd<'_>,
    output: impl Write,
) -> Result<()> {
    let mut layer = Layer::new(output);
    let lower = lower.map(duplicate).transpose()?;
    trees::walk(&mut layer, lower.as_ref(), &duplicate(upper)?, b"")?;
    layer.writer.finish()
}

/// Writes the upper directory of an overlay as an uncompressed layer, without a look at what is
/// below.
///
/// # Errors
/// - FailedPrecondition: the overlay was mounted with `redirect_dir` or `metacopy`, so that the
///   upper directory doesn't tell all: use [`diff`] on mounted trees;
/// - as for [`diff`].
pub fn diff_upper(upper: BorrowedFd<'_>, output: impl Write) -> Result<()> {
    let mut layer = Layer::new(output);
    upper::walk(&mut layer, &duplicate(upper)?, b"")?;
    layer.writer.finish()
}

fn duplicate(root: BorrowedFd<'_>) -> Result<Directory> {
    let flags =
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let fd = rustix::fs::openat(root, ".", flags, rustix::fs::Mode::empty())
        .map_err(std::io::Error::from)
        .context(|| "open the tree")?;
    Ok(Directory::made(fd, 0))
}

/// A layer being written.
struct Layer<W> {
    writer: Writer<W>,
    /// The first names of files with several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Unchanged names of files with several, none of which is written.
    passed: HashMap<(u64, u64), Vec<Entry>>,
    /// Directories that lead to where the walk is and are not written yet.
    pending: Vec<Entry>,
}

impl<W: Write> Layer<W> {
    fn new(output: W) -> Self {
        Self {
            writer: Writer::new(output),
            links: HashMap::new(),
            passed: HashMap::new(),
            pending: Vec::new(),
        }
    }

    /// Writes the file `entry`, which is `name` in `parent`.
    fn add(&mut self, entry: Entry, parent: &Directory, name: &[u8], stat: &Stat) -> Result<()> {
        let inode = inode_of_several(&entry, stat);
        if let Some(first) = inode.and_then(|inode| self.links.get(&inode)) {
            let link = as_link(entry, first);
            return self.write(&link, std::io::empty());
        }
        match entry.kind {
            EntryKind::File => {
                let file = node::open(parent, name, &entry.path)?;
                self.write(&entry, file)?;
            }
            _ => self.write(&entry, std::io::empty())?,
        }
        let Some(inode) = inode else { return Ok(()) };
        for passed in self.passed.remove(&inode).unwrap_or_default() {
            self.write(&as_link(passed, &entry.path), std::io::empty())?;
        }
        self.links.insert(inode, entry.path);
        Ok(())
    }

    /// Passes over a file that is as it was, unless another name of it is written: then this one
    /// must be too, to stay the same file.
    fn pass(&mut self, entry: Entry, stat: &Stat) -> Result<()> {
        let Some(inode) = inode_of_several(&entry, stat) else { return Ok(()) };
        match self.links.get(&inode) {
            Some(first) => {
                let link = as_link(entry, first);
                self.write(&link, std::io::empty())
            }
            None => {
                self.passed.entry(inode).or_default().push(entry);
                Ok(())
            }
        }
    }

    /// Writes that lower layers' `path` is gone.
    fn add_whiteout(&mut self, directory: &[u8], name: &[u8]) -> Result<()> {
        let name = [WHITEOUT, name].concat();
        let whiteout = Entry {
            path: join(directory, &name),
            kind: EntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
            size: 0,
        };
        self.write(&whiteout, std::io::empty())
    }

    fn write(&mut self, entry: &Entry, data: impl Read) -> Result<()> {
        for directory in self.pending.drain(..) {
            self.writer.add(&directory, std::io::empty())?;
        }
        self.writer.add(entry, data)
    }
}

/// The inode of a file that has several names.
fn inode_of_several(entry: &Entry, stat: &Stat) -> Option<(u64, u64)> {
    let several = stat.st_nlink > 1 && entry.kind != EntryKind::Directory;
    several.then_some((stat.st_dev, stat.st_ino))
}

/// The same file as another name of `first`.
fn as_link(entry: Entry, first: &[u8]) -> Entry {
    Entry { kind: EntryKind::HardLink(first.to_vec()), size: 0, xattrs: Vec::new(), ..entry }
}

/// The names in a directory, in order.
fn names(directory: &Directory, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let failed = |errno: rustix::io::Errno| fault("list the directory", path, &errno.into());
    for entry in Dir::read_from(directory.as_fd()).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
        if name.starts_with(WHITEOUT) {
            let path = shown(&join(path, &name));
            tracing::warn!(path, "left out of the layer: the name would make it a whiteout");
        } else if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, name].join(&b'/') }
}
