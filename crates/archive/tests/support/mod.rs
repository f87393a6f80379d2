//! What the tests share: applying an archive, and trees as text that can be compared.

#![allow(dead_code, reason = "each test file uses a part of it")]

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
use tar::Header;

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

/// Makes a tree with one of everything.
pub(crate) fn one_of_everything(root: &Path) {
    let script = r#"
        set -e
        mkdir -p a/b/c sticky setgid "name with spaces" "$(printf 'new\nline')"
        echo hello > a/file; echo inner > a/b/c/deep; : > empty
        head -c 300000 /dev/urandom > a/random
        long=$(printf 'x%.0s' $(seq 200)); mkdir -p $long/$long; echo long > $long/$long/$long
        ln -s ../file a/b/link; ln -s /absolute/target dangling; ln -s $long/$long/$long longlink
        ln a/file a/b/hard; ln a/file second; ln $long/$long/$long hardlong; ln -h dangling hardsym 2>/dev/null || ln -P dangling hardsym
        mkfifo pipe; mknod null c 1 3; mknod disk b 259 1048575
        chmod 1777 sticky; chmod 2775 setgid; chmod 0000 empty
        cp /bin/true suid; chown 65534:100 suid; chmod 4755 suid; cp /bin/true sgid; chmod 2711 sgid
        chown 4000000000:4000000001 a/random; chown -h 1000:1000 dangling pipe null
        setfattr -n user.comment -v "0s$(printf 'a\n\0=b' | base64)" a/file
        setfattr -n security.capability -v 0x010000020a0a000000000000000000000000000a suid
        setfattr -n trusted.note -v x a/b; setfattr -h -n trusted.note -v y dangling
        setfattr -n user.dir -v z setgid; echo inherits > setgid/file; chown 0:100 setgid/file
        truncate -s 10M hole; truncate -s 1M head; echo data >> head; truncate -s 3M head; echo x >> head
        for i in $(seq 40); do truncate -s $((i*200000)) many; echo $i >> many; done
        touch -d '1960-01-02 03:04:05.5 UTC' old; touch -d '2001-01-01 01:01:01.123456789 UTC' a/file a/b
        touch -h -d '2002-02-02 02:02:02.987654321 UTC' dangling a/b/link pipe
        touch -d '2100-01-01 UTC' future; touch -d '1999-09-09 09:09:09 UTC' . a
    "#;
    run(Command::new("sh").args(["-c", script]).current_dir(root));
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

/// An attribute of a file, if it has it.
pub(crate) fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(1 << 16);
    let spare = rustix::buffer::spare_capacity(&mut value);
    rustix::fs::lgetxattr(path, name, spare).ok()?;
    Some(value)
}

/// An archive being written, member by member, with whatever a test wants in it.
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// A header of type `kind`; `change` may spoil it before its checksum is made.
    pub(crate) fn member(
        mut self,
        kind: u8,
        name: &str,
        data: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkflag[0] = kind;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.member(b'0', name, data.as_bytes(), |_| {})
    }

    pub(crate) fn directory(self, name: &str, mode: u32) -> Self {
        self.member(b'5', name, b"", |header| header.set_mode(mode))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.linked(b'2', name, target)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.linked(b'1', name, target)
    }

    fn linked(self, kind: u8, name: &str, target: &str) -> Self {
        self.member(kind, name, b"", |header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        })
    }

    /// An extended header of type `kind` with one record.
    pub(crate) fn pax(self, kind: u8, key: &str, value: &[u8]) -> Self {
        self.member(kind, "pax", &record(key, value), |_| {})
    }

    /// Appends whole blocks as they are.
    pub(crate) fn raw(mut self, blocks: &[u8]) -> Self {
        self.0.extend_from_slice(blocks);
        self
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// A record of an extended header.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let digits = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap();
    [format!("{} {key}=", rest + digits).as_bytes(), value, b"\n"].concat()
}
