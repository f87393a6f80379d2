//! What the tests share: applying an archive, and trees as text that can be compared.

#![allow(dead_code)] // Each test file uses a part of it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_archive::{Applied, Decompress, Options, apply};
use berth_types::{Digest, Result};

/// Decompresses and applies `archive` to the directory `root`.
pub(crate) fn apply_to(root: &Path, archive: &[u8], options: &Options) -> Result<Applied> {
    let root = File::open(root).unwrap();
    apply(Decompress::new(archive)?, root.as_fd(), options)
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    output.stdout
}

/// The tree below `root`, a line for each file: type, mode, owner, time, device, links, attributes
/// and a digest of the data.
pub(crate) fn listing(root: &Path) -> String {
    let mut paths = Vec::new();
    collect(root, &mut paths);
    paths.sort();
    let mut first_names = HashMap::new();
    let mut text = String::new();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_path_buf();
        let metadata = path.symlink_metadata().unwrap();
        let first = first_names.entry(metadata.ino()).or_insert_with(|| name.clone()).clone();
        let link = if first == name { String::new() } else { format!(" = {}", first.display()) };
        writeln!(text, "{}{link} {}", name.display(), describe(&path, &metadata)).unwrap();
    }
    text
}

fn collect(path: &Path, paths: &mut Vec<PathBuf>) {
    paths.push(path.to_path_buf());
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), paths);
        }
    }
}

fn describe(path: &Path, metadata: &Metadata) -> String {
    let kind = metadata.file_type();
    let content = if kind.is_symlink() {
        format!("-> {:?}", fs::read_link(path).unwrap())
    } else if kind.is_file() {
        format!("{} {}", metadata.len(), &Digest::of(&fs::read(path).unwrap()).hex()[..16])
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {:#x}", metadata.rdev())
    } else {
        String::new()
    };
    format!(
        "{:o} {}:{} {}.{:09} {content}{}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        xattrs(path)
    )
}

fn xattrs(path: &Path) -> String {
    let mut names = Vec::with_capacity(1 << 16);
    let spare = rustix::buffer::spare_capacity(&mut names);
    rustix::fs::llistxattr(path, spare).unwrap();
    let mut names: Vec<&[u8]> = names.split(|b| *b == 0).filter(|name| !name.is_empty()).collect();
    names.sort();
    let mut text = String::new();
    for name in names {
        let mut value = Vec::with_capacity(1 << 16);
        let spare = rustix::buffer::spare_capacity(&mut value);
        rustix::fs::lgetxattr(path, name, spare).unwrap();
        let name = std::ffi::OsStr::from_bytes(name);
        write!(text, " {}={value:?}", name.display()).unwrap();
    }
    text
}
