//! Paths inside a directory that somebody hostile may be changing meanwhile.
//!
//! Everything is looked up by `openat2(2)` with `RESOLVE_IN_ROOT`: links and `..` lead where they
//! would lead after a `chroot(2)`, and what is made is made relative to a directory that was
//! looked up so.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a lookup is repeated that a concurrent rename disturbed.
const LOOKUPS: usize = 64;

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

    /// A reference to the directory `path`; what is missing of it is made with mode 0755.
    ///
    /// # Errors
    /// Those of `openat2(2)` and `mkdirat(2)`: `ENOTDIR` when something else is there, `ELOOP` for
    /// a link that leads nowhere.
    pub fn make_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open_at(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let path = normal(path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return self.0.try_clone();
        };
        let parent = self.make_directory(&Path::new("/").join(parent))?;
        make_child_directory(parent.as_fd(), name.as_ref())
    }

    /// A reference to `path`; when it is missing, an empty file with mode 0644 is made, in
    /// directories that are made as needed.
    ///
    /// # Errors
    /// As [`Root::make_directory`].
    pub fn make_file(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let path = normal(path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::ISDIR.into());
        };
        let parent = self.make_directory(&Path::new("/").join(parent))?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?)
    }
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

/// Makes the directory `name` in `parent`, where it may be already.
fn make_child_directory(parent: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// `path` as text says it, from the root, without `.` and `..`.
fn normal(path: &Path) -> io::Result<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => drop(normal.pop()),
            Component::RootDir | Component::CurDir => {}
            Component::Prefix(_) => return Err(Errno::INVAL.into()),
        }
    }
    Ok(normal)
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
        assert!(root.make_directory(Path::new("/absolute/made")).is_err());
        assert!(root.make_file(Path::new("/relative/made")).is_err());
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
