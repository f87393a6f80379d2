//! Whiteouts: members that say what lower layers no longer have. They concern lower layers only,
//! wherever in the archive they stand.

use std::os::fd::AsFd;

use berth_types::Result;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::{Layer, Whiteouts, removal};
use crate::entry::Entry;
use crate::tree::{Directory, fault, open_child, set_opaque, stat};

impl Layer {
    /// Hides what lower layers have as `name` in the directory `parent`.
    pub(super) fn white_out(&mut self, entry: &Entry, parent: &[u8], name: &[u8]) -> Result<()> {
        match self.whiteouts {
            Whiteouts::Overlay => {
                let directory = self.tree.directory(parent)?;
                self.whited_out.insert(parent.to_vec());
                make_whiteout(entry, &directory, name)
            }
            Whiteouts::Remove => {
                let Some(directory) = self.tree.find(parent)? else { return Ok(()) };
                self.note_change(parent);
                self.remove_lower(&directory, &join(parent, name), name)
            }
        }
    }

    /// Hides all that lower layers have in the directory `parent`.
    pub(super) fn make_opaque(&mut self, parent: &[u8]) -> Result<()> {
        match self.whiteouts {
            Whiteouts::Overlay => {
                let directory = self.tree.directory(parent)?;
                set_opaque(directory.as_fd(), parent)
            }
            Whiteouts::Remove => {
                let Some(directory) = self.tree.find(parent)? else { return Ok(()) };
                self.note_change(parent);
                self.remove_lower_children(&directory, parent)
            }
        }
    }

    fn remove_lower_children(&mut self, directory: &Directory, path: &[u8]) -> Result<()> {
        let names = removal::names(directory)
            .map_err(|errno| fault("list the directory of", path, &errno.into()))?;
        for name in names {
            self.remove_lower(directory, &join(path, &name), &name)?;
        }
        Ok(())
    }
}

/// Makes overlayfs's whiteout of `name`. What is there is this layer's and stays; a directory is
/// made opaque, so that it shows nothing from below.
fn make_whiteout(entry: &Entry, directory: &Directory, name: &[u8]) -> Result<()> {
    let failed = |errno: Errno| fault("make", &entry.path, &errno.into());
    match rustix::fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Ok(()) if directory.inherits => return disinherit(directory, name).map_err(failed),
        Ok(()) => return Ok(()),
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let there = stat(directory, name).map_err(failed)?;
    if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
        return Ok(());
    }
    let fd = open_child(directory, name).map_err(|error| fault("open", &entry.path, &error))?;
    set_opaque(fd.as_fd(), &entry.path)
}

/// Gives a whiteout made in a set-group-ID directory the group that it has in any other.
fn disinherit(directory: &Directory, name: &[u8]) -> Result<(), Errno> {
    let (user, group) = (Some(Uid::ROOT), Some(Gid::ROOT));
    rustix::fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, name].join(&b'/') }
}
