//! Whiteouts: members that say what lower layers no longer have (OCI image specification,
//! `layer.md`, "Whiteouts"). They concern lower layers only, wherever in the archive they stand.

use std::os::fd::AsFd;

use berth_types::Result;
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::{Layer, Whiteouts, removal};
use crate::entry::{Entry, refused};
use crate::tree::{Directory, fault, open_child, set_opaque, stat};

/// What the names of whiteouts begin with.
pub(super) const PREFIX: &[u8] = b".wh.";

/// The whiteout of all that lower layers have in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the names of AUFS's own files begin with.
const AUFS: &[u8] = b".wh..wh.";

/// A member below a whiteout. AUFS's own directories are passed over, as by other readers.
pub(super) fn inside(entry: &Entry) -> Result<()> {
    if entry.path.starts_with(AUFS) {
        return Ok(());
    }
    Err(refused(&entry.path, "it lies in a whiteout"))
}

impl Layer {
    /// Does what the whiteout `name` in the directory `parent` asks for.
    pub(super) fn white_out(&mut self, entry: &Entry, parent: &[u8], name: &[u8]) -> Result<()> {
        let hidden = &name[PREFIX.len()..];
        if name != OPAQUE && name.starts_with(AUFS) {
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(refused(&entry.path, "it is a whiteout of nothing in its directory"));
        }
        match self.whiteouts {
            Whiteouts::Overlay => {
                let directory = self.tree.directory(parent)?;
                if name == OPAQUE {
                    return set_opaque(directory.as_fd(), parent);
                }
                self.whited_out.insert(parent.to_vec());
                make_whiteout(entry, &directory, hidden)
            }
            Whiteouts::Remove => {
                let Some(directory) = self.tree.find(parent)? else { return Ok(()) };
                self.note_change(parent);
                match name == OPAQUE {
                    true => self.remove_lower_children(&directory, parent),
                    false => self.remove_lower(&directory, &join(parent, hidden), hidden),
                }
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
        Err(Errno::EXIST) => {}
        made => return made.map_err(failed),
    }
    let there = stat(directory, name).map_err(failed)?;
    if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
        return Ok(());
    }
    let fd = open_child(directory, name).map_err(|error| fault("open", &entry.path, &error))?;
    set_opaque(fd.as_fd(), &entry.path)
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, name].join(&b'/') }
}
