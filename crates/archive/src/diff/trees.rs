//! The difference of two whole trees, found by walking both.

use std::fs::File;
use std::io::{Read, Write};

use berth_types::{Result, ResultExt};
use rustix::fs::Stat;

use super::{Layer, join, names, node};
use crate::entry::{Entry, EntryKind, shown};
use crate::tree::Directory;

/// How much is read of each file at once to compare them, in bytes.
const COMPARE_SIZE: usize = 64 << 10;

/// Writes how `upper` differs from `lower`; both are at `path`.
pub(super) fn walk<W: Write>(
    layer: &mut Layer<W>,
    lower: Option<&Directory>,
    upper: &Directory,
    path: &[u8],
) -> Result<()> {
    let above = names(upper, path)?;
    let below = lower.map_or(Ok(Vec::new()), |lower| names(lower, path))?;
    for gone in below.iter().filter(|name| above.binary_search(name).is_err()) {
        layer.add_whiteout(path, gone)?;
    }
    for name in above {
        let lower = lower.filter(|_| below.binary_search(&name).is_ok());
        compare(layer, lower, upper, path, &name)?;
    }
    Ok(())
}

/// Writes how `name` differs, which both directories have if there is a `lower` one.
fn compare<W: Write>(
    layer: &mut Layer<W>,
    lower: Option<&Directory>,
    upper: &Directory,
    path: &[u8],
    name: &[u8],
) -> Result<()> {
    let path = join(path, name);
    let Some((entry, stat)) = look(upper, name, &path)? else { return Ok(()) };
    let below = match lower {
        Some(lower) => look(lower, name, &path)?.map(|(entry, stat)| (lower, entry, stat)),
        None => None,
    };
    let was_directory = matches!(&below, Some((_, below, _)) if below.kind == EntryKind::Directory);
    let changed = match &below {
        Some((lower, below, below_stat)) => {
            !same(below, &entry)
                || below_stat.st_nlink != stat.st_nlink && entry.kind != EntryKind::Directory
                || !same_data((lower, below_stat), (upper, &stat), &entry, name)?
        }
        None => true,
    };
    if entry.kind != EntryKind::Directory {
        return match changed {
            true => layer.add(entry, upper, name, &stat),
            false => layer.pass(entry, &stat),
        };
    }
    match changed {
        true => layer.add(entry, upper, name, &stat)?,
        false => layer.pending.push(entry),
    }
    let inner = node::open_directory(upper, name, &path)?;
    let lower = match lower.filter(|_| was_directory) {
        Some(lower) => Some(node::open_directory(lower, name, &path)?),
        None => None,
    };
    walk(layer, lower.as_ref(), &inner, &path)?;
    layer.pending.pop_if(|pending| pending.path == path);
    Ok(())
}

fn look(parent: &Directory, name: &[u8], path: &[u8]) -> Result<Option<(Entry, Stat)>> {
    let Some(stat) = node::stat(parent, name, path)? else { return Ok(None) };
    Ok(node::describe(parent, name, path, &stat)?.map(|entry| (entry, stat)))
}

/// Whether two files look the same. A directory's time tells of its children, which are compared
/// themselves.
fn same(below: &Entry, above: &Entry) -> bool {
    let same_time = below.mtime == above.mtime || above.kind == EntryKind::Directory;
    below.kind == above.kind
        && below.mode == above.mode
        && below.uid == above.uid
        && below.gid == above.gid
        && below.size == above.size
        && below.xattrs == above.xattrs
        && same_time
}

/// Whether two files that look the same hold the same bytes. Whole seconds are what an archive
/// left of the time, which tells too little.
fn same_data(
    (lower, below): (&Directory, &Stat),
    (upper, above): (&Directory, &Stat),
    entry: &Entry,
    name: &[u8],
) -> Result<bool> {
    let same_file = (below.st_dev, below.st_ino) == (above.st_dev, above.st_ino);
    if entry.kind != EntryKind::File || same_file || entry.mtime.nanoseconds != 0 {
        return Ok(true);
    }
    let below = node::open(lower, name, &entry.path)?;
    let above = node::open(upper, name, &entry.path)?;
    same_bytes(below, above).context(|| format!("compare {}", shown(&entry.path)))
}

fn same_bytes(below: File, above: File) -> std::io::Result<bool> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    loop {
        ours.clear();
        theirs.clear();
        (&below).take(COMPARE_SIZE as u64).read_to_end(&mut ours)?;
        (&above).take(COMPARE_SIZE as u64).read_to_end(&mut theirs)?;
        if ours != theirs || ours.is_empty() {
            return Ok(ours == theirs);
        }
    }
}
