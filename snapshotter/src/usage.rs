//! What a directory takes on disk, as du(1) counts it.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Usage;

/// The size of the unit of `st_blocks` (stat(2)), in bytes.
const BLOCK: u64 = 512;

/// Measures everything below `directory`, and itself. What vanishes meanwhile is not counted:
/// a container may be at work there.
pub(crate) fn measure(directory: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let mut pending = vec![directory.to_owned()];
    count(&mut usage, &mut linked, &fs::symlink_metadata(directory)?);
    while let Some(directory) = pending.pop() {
        let Some(entries) = present(fs::read_dir(&directory))? else { continue };
        for entry in entries {
            let entry = entry?;
            let Some(metadata) = present(entry.metadata())? else { continue };
            count(&mut usage, &mut linked, &metadata);
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(usage)
}

fn count(usage: &mut Usage, linked: &mut HashSet<(u64, u64)>, metadata: &Metadata) {
    let several = !metadata.is_dir() && metadata.nlink() > 1;
    if several && !linked.insert((metadata.dev(), metadata.ino())) {
        return;
    }
    usage.size += metadata.blocks() * BLOCK;
    usage.inodes += 1;
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
