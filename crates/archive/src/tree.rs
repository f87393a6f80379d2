//! The tree that a layer is applied to: directories by path, each looked up once.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use berth_sys::path::Root;
use berth_types::{Error, Result, ResultExt};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::entry::{refused, shown, split};

/// Directories kept open. Archives go through a tree in depth, so few are enough; when there are
/// more, all are closed.
const MAX_OPEN: usize = 128;

/// Symbolic links that may follow one another, as in the kernel.
const MAX_LINKS: usize = 40;

/// The mode of directories that the archive doesn't have.
const IMPLICIT_MODE: Mode = Mode::from_bits_retain(0o755);

/// An open directory.
pub(crate) struct Directory {
    fd: OwnedFd,
    /// What is made in it gets its group or an access list from it.
    pub(crate) inherits: bool,
}

impl Directory {
    /// A directory of which nothing is known.
    pub(crate) fn existing(fd: OwnedFd) -> Result<Self> {
        let stat =
            rustix::fs::fstat(&fd).map_err(io::Error::from).context(|| "examine a directory")?;
        let access_list = rustix::fs::fgetxattr_query(&fd, "system.posix_acl_default").is_ok();
        let inherits = access_list || Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID);
        Ok(Self { fd, inherits })
    }

    /// A directory just made, without an access list of its own.
    pub(crate) fn made(fd: OwnedFd, mode: u32) -> Self {
        Self { fd, inherits: Mode::from_raw_mode(mode).contains(Mode::SGID) }
    }

    /// The same, with [`Directory::inherits`] as given.
    pub(crate) fn inheriting(self, inherits: bool) -> Self {
        Self { inherits, ..self }
    }

    /// A name for calls that take no descriptor of a directory.
    pub(crate) fn proc_path(&self, name: &[u8]) -> Vec<u8> {
        let mut path = format!("/proc/self/fd/{}/", self.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        path
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The tree. Paths are as [`Entry::path`](crate::Entry::path).
pub(crate) struct Tree {
    root: Root,
    open: HashMap<Vec<u8>, Rc<Directory>>,
    /// Directories that are there though the archive didn't have them, or not yet.
    pub(crate) implicit: BTreeSet<Vec<u8>>,
    /// How many directories may yet be made so.
    spare: u64,
    fresh: Fresh,
}

/// What the kernel gives everything that this process makes.
#[derive(Clone, Copy)]
pub(crate) struct Fresh {
    /// Bits taken from the mode.
    pub(crate) umask: u32,
    /// The owner.
    pub(crate) uid: u32,
    /// The group, unless the directory says otherwise.
    pub(crate) gid: u32,
}

impl Fresh {
    fn of_this_process() -> Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        Ok(Self { umask: umask()?, uid, gid })
    }
}

impl Tree {
    /// The tree below `root`, in which at most `limit` directories are made implicitly.
    ///
    /// # Errors
    /// When descriptors run out, or `/proc` can't be read.
    pub(crate) fn new(root: BorrowedFd<'_>, limit: u64) -> Result<Self> {
        let root = root.try_clone_to_owned().context(|| "duplicate a descriptor")?;
        Ok(Self {
            root: Root::from(root),
            open: HashMap::new(),
            // The root is there before any member.
            implicit: BTreeSet::from([Vec::new()]),
            spare: limit,
            fresh: Fresh::of_this_process()?,
        })
    }

    /// What everything made here has from the start.
    pub(crate) fn fresh(&self) -> Fresh {
        self.fresh
    }

    /// The directory at `path`, if there is one, following links.
    ///
    /// # Errors
    /// InvalidArgument when a component is no directory.
    pub(crate) fn find(&mut self, path: &[u8]) -> Result<Option<Rc<Directory>>> {
        if let Some(directory) = self.open.get(path) {
            return Ok(Some(directory.clone()));
        }
        match self.open(path) {
            Ok(fd) => self.keep(path, Directory::existing(fd)?).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault("look up", path, &error)),
        }
    }

    /// The directory at `path`, following links; what is missing is made.
    ///
    /// # Errors
    /// InvalidArgument when a component is no directory, ResourceExhausted when too many would be
    /// made.
    pub(crate) fn directory(&mut self, path: &[u8]) -> Result<Rc<Directory>> {
        if let Some(directory) = self.open.get(path) {
            return Ok(directory.clone());
        }
        let directory = self.reach(path, MAX_LINKS)?;
        self.keep(path, directory)
    }

    /// Remembers that `directory` is at `path`.
    pub(crate) fn keep(&mut self, path: &[u8], directory: Directory) -> Result<Rc<Directory>> {
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        let directory = Rc::new(directory);
        self.open.insert(path.to_vec(), directory.clone());
        Ok(directory)
    }

    /// Forgets the open directories, because something that may lead to one was removed.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
    }

    /// Takes `path`, which was removed, and what was below it from the implicit directories.
    pub(crate) fn forget_implicit(&mut self, path: &[u8]) {
        self.implicit.remove(path);
        let start = [path, b"/"].concat();
        let below =
            self.implicit.range(start.clone()..).take_while(|path| path.starts_with(&start));
        for path in below.cloned().collect::<Vec<_>>() {
            self.implicit.remove(&path);
        }
    }

    fn open(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.root.open_at(Path::new(OsStr::from_bytes(path)), flags)
    }

    fn reach(&mut self, path: &[u8], links: usize) -> Result<Directory> {
        match self.open(path) {
            Ok(fd) => Directory::existing(fd),
            Err(error) if is_missing(&error) => self.reach_stepwise(path, links),
            Err(error) => Err(fault("look up", path, &error)),
        }
    }

    /// Goes from the root to `path`, making what is missing.
    fn reach_stepwise(&mut self, path: &[u8], links: usize) -> Result<Directory> {
        let mut reached = Directory::existing(self.open(b"").context(|| "open the root")?)?;
        let mut walked = Vec::with_capacity(path.len());
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if !walked.is_empty() {
                walked.push(b'/');
            }
            walked.extend_from_slice(name);
            reached = match self.open(&walked) {
                Ok(fd) => Directory::existing(fd)?,
                Err(error) if is_missing(&error) => self.make(&reached, &walked, links)?,
                Err(error) => return Err(fault("look up", &walked, &error)),
            };
        }
        Ok(reached)
    }

    /// Makes the directory `path`, which `parent` is to hold and which can't be opened.
    fn make(&mut self, parent: &Directory, path: &[u8], links: usize) -> Result<Directory> {
        let (parent_path, name) = split(path);
        match rustix::fs::mkdirat(parent, name, IMPLICIT_MODE) {
            Ok(()) => self.made_implicitly(parent, path, links),
            Err(Errno::EXIST) => match rustix::fs::readlinkat(parent, name, Vec::new()) {
                Ok(text) => self.follow(parent_path, text.as_bytes(), links),
                Err(Errno::INVAL) => self.replace_whiteout(parent, path, links),
                Err(errno) => Err(fault("look up", path, &errno.into())),
            },
            Err(errno) => Err(fault("make the directory", path, &errno.into())),
        }
    }

    /// Opens the directory `path` just made, gives it the mode and owner that it would have in an
    /// empty tree, and notes that the archive didn't have it.
    fn made_implicitly(
        &mut self,
        parent: &Directory,
        path: &[u8],
        links: usize,
    ) -> Result<Directory> {
        self.spare = self.spare.checked_sub(1).ok_or_else(|| {
            Error::resource_exhausted("the layer has files in too many directories")
        })?;
        let fd = open_child(parent, split(path).1).context(|| opening(path))?;
        if parent.inherits {
            let root = (Some(rustix::fs::Uid::ROOT), Some(rustix::fs::Gid::ROOT));
            rustix::fs::fchown(&fd, root.0, root.1)
                .map_err(|errno| fault("set the owner of", path, &errno.into()))?;
        }
        if parent.inherits || self.fresh.umask & IMPLICIT_MODE.bits() != 0 {
            rustix::fs::fchmod(&fd, IMPLICIT_MODE)
                .map_err(|errno| fault("set the mode of", path, &errno.into()))?;
        }
        // A path with links in it names a directory that lower layers have under another.
        if links == MAX_LINKS {
            self.implicit.insert(path.to_vec());
        }
        if parent.inherits { Directory::existing(fd) } else { Ok(Directory::made(fd, 0o755)) }
    }

    /// Goes where the dangling link in `parent` leads.
    fn follow(&mut self, parent: &[u8], text: &[u8], links: usize) -> Result<Directory> {
        let links = links
            .checked_sub(1)
            .ok_or_else(|| refused(parent, "it leads through too many symbolic links"))?;
        match text {
            [b'/', ..] | [] => self.reach(text, links),
            _ => self.reach(&[parent, text].join(&b'/'), links),
        }
    }

    /// Makes a directory of the whiteout at `path`: what the whiteout hides stays hidden.
    fn replace_whiteout(
        &mut self,
        parent: &Directory,
        path: &[u8],
        links: usize,
    ) -> Result<Directory> {
        let name = split(path).1;
        let stat = stat(parent, name).map_err(|errno| fault("look up", path, &errno.into()))?;
        if !is_whiteout(&stat) {
            return Err(refused(path, "something that is not a directory would hold files"));
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty())
            .and_then(|()| rustix::fs::mkdirat(parent, name, IMPLICIT_MODE))
            .map_err(|errno| fault("make the directory", path, &errno.into()))?;
        let directory = self.made_implicitly(parent, path, links)?;
        set_opaque(directory.as_fd(), path)?;
        Ok(directory)
    }
}

/// Opens the directory `name` in `parent`, which may not be a link.
pub(crate) fn open_child(parent: &Directory, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// What `name` in `parent` is, itself.
pub(crate) fn stat(parent: &Directory, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Whether overlayfs takes the file as the absence of one.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Hides what lower layers have in the directory (overlayfs documentation, "whiteouts and opaque
/// directories").
pub(crate) fn set_opaque(directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", flags)
        .map_err(|errno| fault("mark as opaque", path, &errno.into()))
}

/// Whether the directory hides what lower layers have in it.
pub(crate) fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    rustix::fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value) == Ok(1)
        && value == *b"y"
}

/// The failure to do `what` with the member at `path`: the archive's fault where only other names
/// or values would help, else the machine's.
pub(crate) fn fault(what: &str, path: &[u8], error: &io::Error) -> Error {
    let errno = Errno::from_io_error(error);
    let archive = [
        Errno::LOOP,
        Errno::NOTDIR,
        Errno::NAMETOOLONG,
        Errno::INVAL,
        Errno::RANGE,
        Errno::TOOBIG,
        Errno::MLINK,
        Errno::ISDIR,
        Errno::EXIST,
    ];
    match errno {
        Some(errno) if archive.contains(&errno) => refused(path, &format!("{what} it: {error}")),
        _ => Error::io(format!("{what} the layer's member {}", shown(path)), error),
    }
}

fn opening(path: &[u8]) -> String {
    format!("open the directory {}", shown(path))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The process's file mode creation mask. It can only be read without changing it from `/proc`
/// (`proc_pid_status(5)`).
fn umask() -> Result<u32> {
    let status =
        std::fs::read_to_string("/proc/thread-self/status").context(|| "read the umask")?;
    let value = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    value.and_then(|value| u32::from_str_radix(value.trim(), 8).ok()).ok_or_else(|| {
        Error::internal("the kernel doesn't tell the umask in /proc/thread-self/status")
    })
}
