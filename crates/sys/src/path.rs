//! Paths inside a directory that somebody hostile may be changing meanwhile.
//!
//! Everything is looked up by `openat2(2)` with `RESOLVE_IN_ROOT`: links and `..` lead where they
//! would lead after a `chroot(2)`, and what is made is made relative to a directory that was
//! looked up so.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a lookup is repeated that a concurrent rename disturbed.
const LOOKUPS: usize = 64;

/// How many links a path may lead through, as `path_resolution(7)` has it.
const LINKS: usize = 40;

/// A directory that paths are looked up in as if it were `/`.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// The directory at `path`, which is trusted and may be a link.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens `path` with `flags`; [`OFlags::CLOEXEC`] is added.
    ///
    /// # Errors
    /// Those of `openat2(2)`.
    pub fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(self.look_up(path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?)
    }

    /// A reference (`O_PATH`) to `path`.
    ///
    /// # Errors
    /// Those of `openat2(2)`.
    pub fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::PATH)
    }

    /// A reference to `path`, no part of which may be a link.
    ///
    /// # Errors
    /// Those of `openat2(2)`: `ELOOP` for a link.
    pub fn find_plain(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.look_up(path, OFlags::PATH, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)?)
    }

    fn look_up(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        for _ in 1..LOOKUPS {
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve)
    }

    /// A reference to the directory `path`; what is missing of it is made with mode 0755, also where
    /// a link leads to.
    ///
    /// # Errors
    /// Those of `openat2(2)` and `mkdirat(2)`: `ENOTDIR` when something else is there, `ELOOP` for
    /// links without end.
    pub fn make_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open_at(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        self.make(path, make_child_directory)
    }

    /// A reference to `path`; when it is missing, an empty file with mode 0644 is made, in
    /// directories that are made as needed, also where a link leads to.
    ///
    /// # Errors
    /// As [`Root::make_directory`].
    pub fn make_file(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        self.make(path, make_child_file)
    }

    /// Makes `path`, which is missing.
    fn make(&self, path: &Path, make: Make) -> io::Result<OwnedFd> {
        // Most often only the last name is.
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            && let Ok(parent) = self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY)
            && make(parent.as_fd(), name).is_ok()
        {
            return self.find(path);
        }
        Ok(Walk::from(self, path)?.make(make)?)
    }
}

/// A lookup that can make what it misses, which `openat2(2)` can't: one name at a time, each in the
/// directory found before it, so that it never leaves the root either.
struct Walk {
    /// The directories from the root to where it is.
    way: Vec<OwnedFd>,
    /// The names still to go, the next one last.
    names: Vec<OsString>,
    /// How many links it may still follow.
    links: usize,
}

impl Walk {
    fn from(root: &Root, path: &Path) -> io::Result<Self> {
        let mut walk = Self { way: vec![root.0.try_clone()?], names: Vec::new(), links: LINKS };
        walk.follow(path);
        Ok(walk)
    }

    /// Goes by `path` next.
    fn follow(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.names.push(name.to_owned()),
                Component::ParentDir => self.names.push("..".into()),
                Component::RootDir => self.way.truncate(1),
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    /// Goes to the end; a last name that is missing is made by `make_last`.
    fn make(mut self, make_last: Make) -> Result<OwnedFd, Errno> {
        while let Some(name) = self.names.pop() {
            if name == ".." {
                self.way.truncate(self.way.len().saturating_sub(1).max(1));
                continue;
            }
            let make = if self.names.is_empty() { make_last } else { make_child_directory };
            let found = self.child(&name, make)?;
            match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
                FileType::Symlink => {
                    self.links = self.links.checked_sub(1).ok_or(Errno::LOOP)?;
                    let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
                    self.follow(Path::new(OsStr::from_bytes(target.as_bytes())));
                }
                FileType::Directory => self.way.push(found),
                _ if self.names.is_empty() => return Ok(found),
                _ => return Err(Errno::NOTDIR),
            }
        }
        self.way.pop().ok_or(Errno::NOENT)
    }

    /// A reference to `name` where it is, which may be a link; when it is missing, `make` makes it.
    fn child(&self, name: &OsStr, make: Make) -> Result<OwnedFd, Errno> {
        let here = self.way.last().ok_or(Errno::NOENT)?.as_fd();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(here, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        match make(here, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        rustix::fs::openat(here, name, flags, Mode::empty())
    }
}

/// Makes something with a name in a directory.
type Make = fn(BorrowedFd<'_>, &OsStr) -> Result<(), Errno>;

fn make_child_directory(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
}

fn make_child_file(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Root {
    /// `directory` must refer to a directory, or every lookup gives `ENOTDIR`.
    fn from(directory: OwnedFd) -> Self {
        Self(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let root = Root::open(&root).unwrap();
        (directory, root)
    }

    #[test]
    fn links_out_of_the_root_lead_back_into_it() {
        let (directory, root) = root();
        let outside = directory.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, directory.path().join("root/absolute")).unwrap();
        symlink("../../outside", directory.path().join("root/relative")).unwrap();
        root.make_directory(Path::new("/absolute/made")).unwrap();
        root.make_file(Path::new("/relative/made")).unwrap();
        let inside = directory.path().join("root").join(outside.strip_prefix("/").unwrap());
        assert!(inside.join("made").is_dir());
        assert!(directory.path().join("root/outside/made").is_file());
        root.make_file(Path::new("/../../../made")).unwrap();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(directory.path().join("root/made").is_file());
    }

    #[test]
    fn missing_directories_and_the_file_are_made_and_found_again() {
        let (directory, root) = root();
        root.make_file(Path::new("/a/b/../c/file")).unwrap();
        assert!(directory.path().join("root/a/c/file").is_file());
        root.make_file(Path::new("/a/c/file")).unwrap();
        root.make_directory(Path::new("a/c/d")).unwrap();
        assert!(root.make_directory(Path::new("/a/c/file/d")).is_err());
    }

    #[test]
    fn what_a_link_leads_to_is_made() {
        let (directory, root) = root();
        let here = directory.path().join("root");
        root.make_directory(Path::new("/real/etc")).unwrap();
        symlink("real/etc", here.join("etc")).unwrap();
        symlink("../run/resolved/stub.conf", here.join("etc/resolv.conf")).unwrap();
        symlink("/etc/resolv.conf", here.join("chain")).unwrap();
        root.make_file(Path::new("/chain")).unwrap();
        assert!(here.join("real/run/resolved/stub.conf").is_file());
        symlink("/var/empty/.", here.join("home")).unwrap();
        root.make_directory(Path::new("/home")).unwrap();
        assert!(here.join("var/empty").is_dir());
        root.make_file(Path::new("/home/../file")).unwrap();
        assert!(here.join("var/file").is_file());
    }

    #[test]
    fn links_without_end_are_refused() {
        let (directory, root) = root();
        let here = directory.path().join("root");
        symlink("two/x", here.join("one")).unwrap();
        symlink("one/x", here.join("two")).unwrap();
        let error = root.make_directory(Path::new("/one")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        let error = root.make_file(Path::new("/one/file")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn plain_lookups_refuse_links() {
        let (directory, root) = root();
        root.make_directory(Path::new("/real")).unwrap();
        symlink("real", directory.path().join("root/link")).unwrap();
        root.find(Path::new("/link")).unwrap();
        root.find_plain(Path::new("/real")).unwrap();
        let error = root.find_plain(Path::new("/link")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }
}
