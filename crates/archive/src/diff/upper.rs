//! The difference that an overlay's upper directory holds (overlayfs documentation, "whiteouts and
//! opaque directories").

use std::io::Write;
use std::os::fd::AsFd;

use berth_types::{Error, Result};

use super::{Layer, OPAQUE, WHITEOUT, join, names, node};
use crate::entry::{EntryKind, shown};
use crate::tree::{Directory, is_opaque, is_whiteout};

/// Writes all that is in `directory`, which is at `path`.
pub(super) fn walk<W: Write>(
    layer: &mut Layer<W>,
    directory: &Directory,
    path: &[u8],
) -> Result<()> {
    for name in names(directory, path)? {
        let child = join(path, &name);
        let Some(stat) = node::stat(directory, &name, &child)? else { continue };
        if is_whiteout(&stat) {
            layer.add_whiteout(path, &name)?;
            continue;
        }
        let Some(entry) = node::describe(directory, &name, &child, &stat)? else { continue };
        check_whole(directory, &name, &child)?;
        let kind = entry.kind.clone();
        layer.add(entry, directory, &name, &stat)?;
        if kind == EntryKind::Directory {
            let inner = node::open_directory(directory, &name, &child)?;
            if is_opaque(inner.as_fd()) {
                layer.add_whiteout(&child, &OPAQUE[WHITEOUT.len()..])?;
            }
            walk(layer, &inner, &child)?;
        }
    }
    Ok(())
}

/// Refuses what has a part of itself in a lower layer.
fn check_whole(parent: &Directory, name: &[u8], path: &[u8]) -> Result<()> {
    let file = parent.proc_path(name);
    for attribute in ["trusted.overlay.redirect", "trusted.overlay.metacopy"] {
        if rustix::fs::lgetxattr(file.as_slice(), attribute, &mut [0u8; 0]).is_ok() {
            return Err(Error::failed_precondition(format!(
                "{} has the attribute {attribute}: compare the mounted trees",
                shown(path)
            )));
        }
    }
    Ok(())
}
