//! What a layer's archive alone doesn't tell, because it depends on the layers below.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use berth_archive::{Time, Xattr};
use berth_types::{Result, ResultExt};

use crate::attributes;
use crate::draft::Draft;
use crate::tree::{DirectoryId, Place, ROOT};

/// A directory that the layers below show.
#[derive(Clone, Debug)]
pub struct Below {
    /// Permission bits with set-user-ID, set-group-ID and sticky bit.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Time,
    /// Extended attributes, without those of overlayfs.
    pub xattrs: Vec<Xattr>,
}

impl Below {
    /// What the open directory `directory` is.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub fn of(directory: BorrowedFd<'_>) -> Result<Self> {
        let what = || "examine a directory of a lower layer";
        let metadata = File::from(directory.try_clone_to_owned().context(what)?).metadata();
        let metadata = metadata.context(what)?;
        Ok(Self {
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: Time { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() },
            xattrs: berth_archive::xattrs(directory).context(what)?,
        })
    }
}

impl Draft {
    /// Whether [`settle`](Self::settle) has anything to correct.
    pub fn depends_on_lower(&self) -> bool {
        self.tree.directories.iter().any(|directory| directory.implicit || directory.whited_out)
    }

    /// Corrects the layer for its place on others, as
    /// [`berth_archive::settle`](berth_archive::settle()) does with a directory. `below` tells
    /// what they show at a path, if it is a directory; the path is relative, the root's empty.
    ///
    /// - A directory that the archive left out gets what is shown below, since in the overlay it
    ///   is this layer's that shows.
    /// - Where nothing shows through, overlayfs lists a whiteout as a name of nothing; it goes.
    ///
    /// # Errors
    /// Those of `below`, and as for attributes of the archive itself.
    pub fn settle(&mut self, mut below: impl FnMut(&Path) -> Result<Option<Below>>) -> Result<()> {
        // A directory is made before those in it, so its number is lower.
        for id in 0..self.tree.directories.len() as DirectoryId {
            let directory = self.tree.directories[id as usize];
            if !(directory.implicit || directory.whited_out) {
                continue;
            }
            let Some((path, hides)) = self.look(id) else { continue };
            let shown = if hides { None } else { below(Path::new(OsStr::from_bytes(&path)))? };
            match shown {
                Some(shown) if directory.implicit => self.take_over(id, &shown)?,
                Some(_) => {}
                None => self.tree.directories[id as usize].bare = true,
            }
        }
        Ok(())
    }

    /// The path of a directory, and whether it or one above it hides those of lower layers.
    /// `None` when something has taken the place of one of them.
    fn look(&self, mut id: DirectoryId) -> Option<(Vec<u8>, bool)> {
        let mut names = Vec::new();
        let mut hides = false;
        while id != ROOT {
            let directory = &self.tree.directories[id as usize];
            if self.tree.place(directory.node) != Place::Directory(id) {
                return None;
            }
            hides |= directory.opaque;
            names.push(self.tree.name(directory.node));
            id = self.tree.parent(id);
        }
        hides |= self.tree.directories[ROOT as usize].opaque;
        names.reverse();
        Some((names.join(&b'/'), hides))
    }

    fn take_over(&mut self, id: DirectoryId, shown: &Below) -> Result<()> {
        let xattrs = attributes::of_directory(&shown.xattrs)?;
        let xattrs = self.sets.keep(&xattrs)?;
        let directory = &mut self.tree.directories[id as usize];
        directory.mode = (shown.mode & 0o7777) as u16;
        directory.uid = shown.uid;
        directory.gid = shown.gid;
        directory.mtime = shown.mtime;
        directory.xattrs = xattrs;
        Ok(())
    }
}
