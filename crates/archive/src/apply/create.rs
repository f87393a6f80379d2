//! Making one member. What is in its place already is removed, except for a directory in place of
//! a directory.

use std::io::Read;
use std::os::fd::OwnedFd;

use berth_types::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{Layer, Whiteouts, metadata};
use crate::entries::Entries;
use crate::entry::{Device, Entry, EntryKind, refused, shown, split};
use crate::tree::{Directory, fault, is_whiteout, open_child, set_opaque, stat};

impl Layer {
    /// Makes a regular file: the hot path, so every call to the kernel counts.
    pub(super) fn add_file<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &Directory,
        name: &[u8],
        entries: &mut Entries<R>,
    ) -> Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_bits_retain(entry.mode & 0o777);
        let file =
            self.make(entry, parent, name, || rustix::fs::openat(parent, name, flags, mode))?;
        entries.write_data(|offset, bytes| write_at(&file, offset, bytes, &entry.path))?;
        if entries.ends_in_hole() {
            rustix::fs::ftruncate(&file, entry.size)
                .map_err(|errno| fault("set the length of", &entry.path, &errno.into()))?;
        }
        metadata::set_file(entry, parent, &file, self.tree.fresh())
    }

    /// Makes a directory, or takes over the one that is there.
    pub(super) fn add_directory(
        &mut self,
        entry: &Entry,
        parent: &Directory,
        name: &[u8],
    ) -> Result<()> {
        let mode = Mode::from_bits_retain(entry.mode & 0o777);
        let directory = match rustix::fs::mkdirat(parent, name, mode) {
            Ok(()) => self.open_made(entry, parent, name)?,
            Err(Errno::EXIST) => self.take_place(entry, parent, name, mode)?,
            Err(errno) => return Err(fault("make the directory", &entry.path, &errno.into())),
        };
        self.set_directory(entry, &directory)?;
        let changed = entry.xattrs.iter().any(|xattr| xattr.name.starts_with("system."));
        let inherits = directory.inherits || changed || entry.mode & 0o2000 != 0;
        self.tree.keep(&entry.path, directory.inheriting(inherits))?;
        self.tree.implicit.remove(&entry.path);
        Ok(())
    }

    fn open_made(&self, entry: &Entry, parent: &Directory, name: &[u8]) -> Result<Directory> {
        let fd = open_child(parent, name).map_err(|error| fault("open", &entry.path, &error))?;
        if parent.inherits { Directory::existing(fd) } else { Ok(Directory::made(fd, 0)) }
    }

    /// Makes a directory where something is.
    fn take_place(
        &mut self,
        entry: &Entry,
        parent: &Directory,
        name: &[u8],
        mode: Mode,
    ) -> Result<Directory> {
        let stat =
            stat(parent, name).map_err(|errno| fault("look up", &entry.path, &errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let fd =
                open_child(parent, name).map_err(|error| fault("open", &entry.path, &error))?;
            return Directory::existing(fd);
        }
        self.clear_place(entry, parent, name)?;
        rustix::fs::mkdirat(parent, name, mode)
            .map_err(|errno| fault("make the directory", &entry.path, &errno.into()))?;
        let directory = self.open_made(entry, parent, name)?;
        // The whiteout hid what lower layers have here, so the directory must.
        if self.whiteouts == Whiteouts::Overlay && is_whiteout(&stat) {
            set_opaque(rustix::fd::AsFd::as_fd(&directory), &entry.path)?;
        }
        Ok(directory)
    }

    /// Gives a directory its owner, mode and attributes, and its time when all is done.
    pub(super) fn set_directory(&mut self, entry: &Entry, directory: &Directory) -> Result<()> {
        metadata::set_directory(entry, directory)?;
        let inode = rustix::fs::fstat(directory)
            .map_err(|errno| fault("examine", &entry.path, &errno.into()))?
            .st_ino;
        self.times.push((entry.path.clone(), inode, metadata::times(entry)));
        Ok(())
    }

    /// Makes a symbolic link, a device or a named pipe.
    pub(super) fn add_node(
        &mut self,
        entry: &Entry,
        parent: &Directory,
        name: &[u8],
    ) -> Result<()> {
        let node = |kind, device: Device| {
            let mode = Mode::from_bits_retain(entry.mode & 0o777);
            let device = rustix::fs::makedev(device.major, device.minor);
            rustix::fs::mknodat(parent, name, kind, mode, device)
        };
        self.make(entry, parent, name, || match &entry.kind {
            EntryKind::Symlink(text) => rustix::fs::symlinkat(text.as_slice(), parent, name),
            EntryKind::CharacterDevice(device) => node(FileType::CharacterDevice, *device),
            EntryKind::BlockDevice(device) => node(FileType::BlockDevice, *device),
            _ => node(FileType::Fifo, Device { major: 0, minor: 0 }),
        })?;
        metadata::set_node(entry, parent, name, self.tree.fresh())
    }

    /// Gives the file at `target` another name.
    pub(super) fn add_link(
        &mut self,
        entry: &Entry,
        parent: &Directory,
        name: &[u8],
        target: &[u8],
    ) -> Result<()> {
        let (target_parent, target_name) = split(target);
        if target_name.is_empty() {
            return Err(refused(&entry.path, "it is a hard link to the root"));
        }
        let missing = || {
            Error::failed_precondition(format!(
                "the layer's member {} is a hard link to {}, which is not in the layer",
                shown(&entry.path),
                shown(target)
            ))
        };
        let from = self.tree.find(target_parent)?.ok_or_else(missing)?;
        let source = match stat(&from, target_name) {
            Err(Errno::NOENT) => return Err(missing()),
            Ok(source) if self.whiteouts == Whiteouts::Overlay && is_whiteout(&source) => {
                return Err(missing());
            }
            stat => stat.map_err(|errno| fault("link", &entry.path, &errno.into()))?,
        };
        if FileType::from_raw_mode(source.st_mode) == FileType::Directory {
            return Err(refused(&entry.path, "it is a hard link to a directory"));
        }
        // Numbers of inodes are those of their filesystem, of which an overlay may show several.
        let same = |there: &Stat| (there.st_dev, there.st_ino) == (source.st_dev, source.st_ino);
        if stat(parent, name).is_ok_and(|there| same(&there)) {
            return Ok(());
        }
        let mut gone = false;
        let made = self.make(entry, parent, name, || {
            let made = rustix::fs::linkat(&*from, target_name, parent, name, AtFlags::empty());
            gone = made == Err(Errno::NOENT);
            made
        });
        match gone {
            true => Err(refused(&entry.path, "it is a hard link to what it replaces")),
            false => made,
        }
    }

    /// Makes something by `make`; what is in its place is removed first.
    fn make<T>(
        &mut self,
        entry: &Entry,
        parent: &Directory,
        name: &[u8],
        mut make: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear_place(entry, parent, name)?;
                make()
            }
            made => made,
        }
        .map_err(|errno| fault("make", &entry.path, &errno.into()))
    }
}

fn write_at(file: &OwnedFd, mut offset: u64, mut bytes: &[u8], path: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Err(Errno::INTR) => {}
            Ok(count) => {
                offset += count as u64;
                bytes = &bytes[count..];
            }
            Err(errno) => return Err(fault("write", path, &errno.into())),
        }
    }
    Ok(())
}
