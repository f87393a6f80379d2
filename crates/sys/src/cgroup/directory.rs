//! Directories and files of the cgroup file systems.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_types::{Error, Kind, Result, ResultExt};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;

/// Marks a parent directory that was made for its children and goes with the last of them.
const MADE_FOR_CHILDREN: &str = "trusted.berth.parent";

/// How often a busy directory is tried, and the first pause, which doubles each time.
const REMOVE_TRIES: u32 = 8;
const REMOVE_PAUSE: Duration = Duration::from_millis(1);

/// Makes `directory`, and its parents up to `top`, and calls `prepare` with each of them in order
/// before the next is made. A parent may be removed by the end of a sibling meanwhile: then it is
/// made again.
pub(super) fn create(
    top: &Path,
    directory: &Path,
    mut prepare: impl FnMut(&Path) -> Result<()>,
) -> Result<()> {
    for _ in 0..REMOVE_TRIES {
        match create_once(top, directory, &mut prepare) {
            Err(error) if error.kind() == Kind::NotFound => {}
            result => return result,
        }
    }
    Err(Error::aborted(format!(
        "create cgroup {}: its parents are being removed again and again",
        directory.display()
    )))
}

/// NotFound when a parent vanished.
fn create_once(
    top: &Path,
    directory: &Path,
    prepare: &mut impl FnMut(&Path) -> Result<()>,
) -> Result<()> {
    let mut above: Vec<_> = directory.ancestors().take_while(|path| *path != top).collect();
    above.reverse();
    for path in above {
        match fs::create_dir(path) {
            Ok(()) if path != directory => mark(path)?,
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::not_found(format!("{} vanished", path.display())));
            }
            Err(error) => return Err(error).context(|| format!("create {}", path.display())),
        }
        prepare(path)?;
    }
    Ok(())
}

fn mark(path: &Path) -> Result<()> {
    match setxattr(path, MADE_FOR_CHILDREN, b"1", XattrFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => Err(Error::not_found(format!("{} vanished", path.display()))),
        Err(error) => {
            Err(io::Error::from(error)).context(|| format!("mark cgroup {}", path.display()))
        }
    }
}

/// Removes `directory`, what is below it, and parents that carry the mark and are empty.
pub(super) fn remove(directory: &Path) -> Result<()> {
    for below in descendants(directory)?.iter().rev() {
        remove_one(below)?;
    }
    let mut parents = directory.ancestors().skip(1);
    while let Some(parent) = parents.next().filter(|parent| is_marked(parent)) {
        // Busy with another child is the usual case, and not ours to report.
        if fs::remove_dir(parent).is_err() {
            break;
        }
    }
    Ok(())
}

fn is_marked(path: &Path) -> bool {
    getxattr(path, MADE_FOR_CHILDREN, &mut [0; 1]).is_ok()
}

fn remove_one(path: &Path) -> Result<()> {
    let mut pause = REMOVE_PAUSE;
    for _ in 0..REMOVE_TRIES {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
            Err(error) => return Err(error).context(|| format!("remove {}", path.display())),
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
    Err(Error::failed_precondition(format!(
        "remove {}: still busy with processes {:?}: kill them first",
        path.display(),
        pids_of(path).unwrap_or_default()
    )))
}

/// `directory` and all below it, parents before children; nothing when it is gone.
pub(super) fn descendants(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if directory.is_dir() {
        found.push(directory.to_owned());
    }
    let mut next = 0;
    while let Some(path) = found.get(next) {
        let mut below = Vec::new();
        match fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        below.push(entry.path());
                    }
                }
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error).context(|| format!("list {}", path.display())),
        }
        found.append(&mut below);
        next += 1;
    }
    Ok(found)
}

/// The processes in `directory` and below; none when it is gone.
pub(super) fn pids(directory: &Path) -> Result<Vec<i32>> {
    let mut all = Vec::new();
    for path in descendants(directory)? {
        all.append(&mut pids_of(&path)?);
    }
    Ok(all)
}

fn pids_of(directory: &Path) -> Result<Vec<i32>> {
    let path = directory.join("cgroup.procs");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // A threaded cgroup's processes are listed by the domain above it.
        Err(error) if is_gone(&error) || error.kind() == ErrorKind::Unsupported => Ok(Vec::new()),
        Err(error) => Err(error).context(|| format!("read {}", path.display())),
    }
}

/// The file or its directory is gone: a removed cgroup's open files answer ENODEV.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Why something at `path` can't be opened: NotFound when it is gone.
pub(super) fn unopened(cgroup: &Path, below: &Path, error: &io::Error) -> Error {
    let what = format!("open {}", cgroup.join(below).display());
    if error.kind() == ErrorKind::NotFound && cgroup.is_dir() {
        return Error::invalid_argument(format!("{what}: it is not there: make it first"));
    }
    match is_gone(error) {
        true => Error::not_found(format!("{what}: {error}")),
        false => Error::io(what, error),
    }
}

/// Writes `value` to a file that the kernel has made.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// The file's text, trimmed; `None` when it, its directory or the figure isn't there.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if is_gone(&error) || error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error).context(|| format!("read {}", path.display())),
    }
}
