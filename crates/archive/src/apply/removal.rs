//! Removing what a layer replaces or hides.

use std::os::fd::AsFd;

use berth_types::Result;
use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;

use super::Layer;
use crate::entry::Entry;
use crate::tree::{Directory, fault, open_child};

impl Layer {
    /// Removes what is in the place of `entry`, with all that is in it.
    pub(super) fn clear_place(
        &mut self,
        entry: &Entry,
        parent: &Directory,
        name: &[u8],
    ) -> Result<()> {
        self.tree.forget();
        self.tree.forget_implicit(&entry.path);
        remove(parent, name, &entry.path, &|_| false)
    }

    /// Removes `name` from `parent`, but nothing that is from this layer.
    pub(super) fn remove_lower(
        &mut self,
        parent: &Directory,
        path: &[u8],
        name: &[u8],
    ) -> Result<()> {
        self.tree.forget();
        remove(parent, name, path, &|path| self.made.contains(path))
    }
}

/// Removes `name` from `parent`, which is at `path`, with all that is in it; except for what
/// `keep` wants, and the directories above that.
fn remove(
    parent: &Directory,
    name: &[u8],
    path: &[u8],
    keep: &dyn Fn(&[u8]) -> bool,
) -> Result<()> {
    let failed = |errno: Errno| fault("remove", path, &errno.into());
    if !keep(path) {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    let fd = match open_child(parent, name) {
        Ok(fd) => fd,
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(()),
        Err(error) => return Err(fault("remove", path, &error)),
    };
    let directory = Directory::made(fd, 0);
    for child in names(&directory).map_err(failed)? {
        remove(&directory, &child, &[path, &child].join(&b'/'), keep)?;
    }
    if keep(path) {
        return Ok(());
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

/// The names in a directory.
pub(super) fn names(directory: &Directory) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory.as_fd())? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}
