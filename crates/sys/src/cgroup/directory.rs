//! Directories and files of the cgroup file systems.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use berth_types::{Error, Kind, Result, ResultExt};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;

use super::walk::{read_at, remove_at, walk};

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
    let below = walk(directory, |_| Ok(()), |parent, name| patiently(|| remove_at(parent, name)));
    below.and_then(|()| patiently(|| fs::remove_dir(directory))).map_err(|error| {
        let what = format!("remove {}", directory.display());
        match error.kind() {
            ErrorKind::ResourceBusy => Error::failed_precondition(format!(
                "{what}: still busy with processes {:?}: kill them first",
                pids(directory).unwrap_or_default()
            )),
            _ => Error::io(what, &error),
        }
    })?;
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

/// Tries `remove` until a directory is not busy any more. Fine if it is gone.
fn patiently(remove: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let mut pause = REMOVE_PAUSE;
    for _ in 1..REMOVE_TRIES {
        match remove() {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
            Err(error) if is_gone(&error) => return Ok(()),
            other => return other,
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
    match remove() {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

/// The processes in `directory` and below; none when it is gone.
pub(super) fn pids(directory: &Path) -> Result<Vec<i32>> {
    let mut all = Vec::new();
    let visit = |directory: BorrowedFd<'_>| match read_at(directory, "cgroup.procs") {
        Ok(text) => {
            all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            Ok(())
        }
        // A threaded cgroup's processes are listed by the domain above it.
        Err(error) if is_gone(&error) || error.kind() == ErrorKind::Unsupported => Ok(()),
        Err(error) => Err(error),
    };
    walk(directory, visit, |_, _| Ok(()))
        .context(|| format!("list the processes of {}", directory.display()))?;
    Ok(all)
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
