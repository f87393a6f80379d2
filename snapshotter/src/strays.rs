//! What is among the snapshots' directories and belongs to none.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use berth_types::{Result, ResultExt};

/// What a snapshot's directory may have in it, of any form of layers.
const OWN: [&str; 4] = ["fs", "work", "layer.erofs", "mnt"];

/// What is in `directory` beside the directories of the numbers `used`, and what is in those and
/// not theirs.
pub(crate) fn find(directory: &Path, used: &HashSet<u64>) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(directory)? {
        if !id(directory, &path).is_some_and(|id| used.contains(&id)) {
            found.push(path);
            continue;
        }
        let own = |path: &PathBuf| OWN.iter().any(|name| path.ends_with(name));
        found.extend(entries(&path)?.into_iter().filter(|path| !own(path)));
    }
    Ok(found)
}

/// The number of a snapshot's directory.
pub(crate) fn id(directory: &Path, path: &Path) -> Option<u64> {
    let name = path.strip_prefix(directory).ok()?.to_str()?;
    let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    name.parse().ok().filter(|id: &u64| is_directory && id.to_string() == name)
}

/// Removes a file, or a directory with what is in it.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    removed.context(|| format!("remove {}", path.display()))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("list {}", directory.display());
    let entries = fs::read_dir(directory).context(what)?;
    entries.map(|entry| entry.map(|entry| entry.path()).context(what)).collect()
}
