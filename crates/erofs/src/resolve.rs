//! Paths, resolved in the tree of the layer as if its root were `/`: as the kernel does it where
//! a layer becomes a directory.

use berth_archive::Entry;
use berth_types::{Error, Result};

use crate::draft::{Draft, MAX_NAME};
use crate::format::{BLOCK, FileType, INODE, Inode, SLOT};
use crate::tree::{Directory, DirectoryId, Place, ROOT};

/// Symbolic links that may be followed on one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// The longest path that the kernel takes, with its end (`path_resolution(7)`).
const MAX_PATH: usize = 4096;

/// What a path leads to when it can't be followed to its end.
enum Missing {
    /// Some component is not there.
    Absent,
    /// It leads through something that is no directory.
    NoDirectory,
}

impl Draft {
    /// The directory at `path`, following links; what is missing is made, and so is a directory of
    /// a whiteout: what it hides stays hidden.
    ///
    /// # Errors
    /// InvalidArgument when the path leads through something else, ResourceExhausted when too many
    /// directories would be made.
    pub(crate) fn directory(&mut self, entry: &Entry, path: &[u8]) -> Result<DirectoryId> {
        if let Some((_, id)) = self.recent.as_ref().filter(|(recent, _)| recent == path) {
            return Ok(*id);
        }
        if path.len() >= MAX_PATH {
            return Err(entry.refused("its path is longer than 4095 bytes"));
        }
        match self.walk(entry, path, true)? {
            Ok(id) => {
                self.recent = Some((path.to_vec(), id));
                Ok(id)
            }
            Err(_) => Err(entry.refused("something that is not a directory would hold files")),
        }
    }

    /// The directory at `path`, following links, if there is one.
    ///
    /// # Errors
    /// InvalidArgument when the path leads through something that is no directory.
    pub(crate) fn find(&mut self, entry: &Entry, path: &[u8]) -> Result<Option<DirectoryId>> {
        match self.walk(entry, path, false)? {
            Ok(id) => Ok(Some(id)),
            Err(Missing::Absent) => Ok(None),
            Err(Missing::NoDirectory) => {
                Err(entry.refused("it leads through something that is not a directory"))
            }
        }
    }

    fn walk(
        &mut self,
        entry: &Entry,
        path: &[u8],
        make: bool,
    ) -> Result<Result<DirectoryId, Missing>> {
        let mut links = MAX_LINKS;
        let mut here = ROOT;
        let mut rest = path.to_vec();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let behind = rest.split_off((end + 1).min(rest.len()));
            let name = &rest[..end];
            if name.len() > MAX_NAME {
                return Err(entry.refused("its path has a name of more than 255 bytes"));
            }
            here = match name {
                b"" | b"." => here,
                b".." => self.tree.parent(here),
                _ => match self.tree.find(here, name).map(|(_, place)| place) {
                    Some(Place::Directory(id)) => id,
                    Some(
                        Place::Inode(number, FileType::Symlink)
                        | Place::Linked(number, FileType::Symlink),
                    ) => {
                        links = links.checked_sub(1).ok_or_else(|| {
                            entry.refused("it leads through too many symbolic links")
                        })?;
                        let text = self.link_text(number)?;
                        rest = [&text[..], &behind].join(&b'/');
                        if text.starts_with(b"/") {
                            here = ROOT;
                        }
                        continue;
                    }
                    Some(Place::Whiteout(_)) if make => self.make_implicit(here, name, true)?,
                    None if make => self.make_implicit(here, name, false)?,
                    None => return Ok(Err(Missing::Absent)),
                    Some(_) => return Ok(Err(Missing::NoDirectory)),
                },
            };
            rest = behind;
        }
        Ok(Ok(here))
    }

    fn make_implicit(
        &mut self,
        parent: DirectoryId,
        name: &[u8],
        opaque: bool,
    ) -> Result<DirectoryId> {
        self.spare = self.spare.checked_sub(1).ok_or_else(|| {
            Error::resource_exhausted("the layer has files in too many directories")
        })?;
        let directory = Directory { opaque, ..Directory::implicit(self.time) };
        self.recent = None;
        self.tree.make(parent, name, directory)
    }

    /// The text of a symbolic link, read back from the image.
    fn link_text(&mut self, number: u64) -> Result<Vec<u8>> {
        let offset = number * SLOT as u64;
        let mut record = [0; INODE];
        self.volume.read_at(offset, &mut record)?;
        let (length, address, xattrs) = Inode::text(&record);
        let start = match address {
            Some(address) => u64::from(address) * BLOCK as u64,
            None => offset + (INODE + xattrs) as u64,
        };
        let mut text = vec![0; length];
        self.volume.read_at(start, &mut text)?;
        Ok(text)
    }
}
