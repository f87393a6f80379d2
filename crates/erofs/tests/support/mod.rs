//! What the tests share: writing an image, mounting it, and comparing it with the directory that
//! is made of the same layer.

#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_archive::{Applied, Decompress, Limits, Options};
use berth_erofs::{Draft, Image};
use berth_types::Result;
use rustix::fs::{AtFlags, Timespec, Timestamps};
use rustix::mount::{MountFlags, UnmountFlags};

#[path = "../../../archive/tests/support/mod.rs"]
mod archive;

pub(crate) use archive::{Tar, apply_to, attribute, listing, one_of_everything, record, run};

/// Limits for what tests make.
pub(crate) const LIMITS: Limits = Limits { entries: 1 << 20, bytes: 64 << 30 };

/// A directory with an image and a directory that are made of the same layer.
pub(crate) struct Pair {
    work: tempfile::TempDir,
    pub(crate) applied: Applied,
}

impl Pair {
    /// Makes both of `archive`, and lets `fsck.erofs` judge the image.
    ///
    /// # Panics
    /// When only one of both fails, or both do for different kinds of reason.
    pub(crate) fn of(archive: &[u8], limits: Limits) -> Result<Self> {
        let work = tempfile::tempdir().unwrap();
        let pair = |name: &str| work.path().join(name);
        fs::create_dir(pair("directory")).unwrap();
        fs::create_dir(pair("mount")).unwrap();
        let applied =
            apply_to(&pair("directory"), archive, &Options { limits, ..Options::default() });
        let written = write(archive, &pair("image"), limits);
        match (applied, written) {
            (Ok(applied), Ok(image)) => {
                check(&pair("image"));
                assert_eq!(image.file.metadata().unwrap().len(), image.length);
                Ok(Self { work, applied })
            }
            (Err(applied), Err(written)) => {
                assert_eq!(applied.kind(), written.kind(), "{applied}, {written}");
                Err(written)
            }
            (Err(error), Ok(_)) => panic!("only the directory failed: {error}"),
            (Ok(_), Err(error)) => panic!("only the image failed: {error}"),
        }
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.work.path().join("image")
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.work.path().join("directory")
    }

    pub(crate) fn mount(&self) -> Mounted {
        Mounted::new(&self.image(), &self.work.path().join("mount"))
    }

    /// Asserts that both are the same, entry by entry.
    pub(crate) fn compare(&self) {
        let mounted = self.mount();
        compare(mounted.path(), &self.directory(), started(&self.work));
    }
}

/// When the work in a directory began. What the clock of this machine gave a time has a later one.
fn started(work: &tempfile::TempDir) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(work.path().metadata().unwrap().ctime() as u64 - 5)
}

/// Asserts that the trees at `image` and `directory` are the same. Files in the directory that
/// have their time from the clock, because the layer has none for them, get that of the image.
pub(crate) fn compare(image: &Path, directory: &Path, started: SystemTime) {
    let (of_image, of_directory) = (links(image), links(directory));
    for (path, (_, modified)) in of_directory.iter().rev() {
        if *modified >= started && of_image.contains_key(path) {
            copy_time(&image.join(path), &directory.join(path));
        }
    }
    let (ours, theirs) = (listing(image), listing(directory));
    let ours = ours.replace(LATE.0, LATE.1);
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
    for (path, (links, _)) in &of_image {
        assert_eq!(*links, of_directory[path].0, "links of {path:?}");
    }
}

/// A time that attacks use, later than ext4 can note one, and the latest that it can.
const LATE: (&str, &str) = ("99999999999999.500000000", "15032385535.000000000");

/// The number of links and the time of each file.
fn links(root: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    fn collect(root: &Path, path: PathBuf, links: &mut BTreeMap<PathBuf, (u64, SystemTime)>) {
        let metadata = root.join(&path).symlink_metadata().unwrap();
        if metadata.is_dir() {
            for entry in fs::read_dir(root.join(&path)).unwrap() {
                collect(root, path.join(entry.unwrap().file_name()), links);
            }
        }
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        links.insert(path, (metadata.nlink(), modified));
    }
    let mut links = BTreeMap::new();
    collect(root, PathBuf::new(), &mut links);
    links
}

fn copy_time(from: &Path, to: &Path) {
    let metadata = from.symlink_metadata().unwrap();
    let time = Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Writes the image of `archive` without regard to layers below.
pub(crate) fn write(archive: &[u8], image: &Path, limits: Limits) -> Result<Image> {
    draft(archive, image, limits)?.seal()
}

/// Writes the image of `archive` except for its directories.
pub(crate) fn draft(archive: &[u8], image: &Path, limits: Limits) -> Result<Draft> {
    let file = File::options().read(true).write(true).create_new(true).open(image).unwrap();
    berth_erofs::write(Decompress::new(archive)?, file, limits)
}

/// Asserts that erofs-utils find nothing wrong with an image: neither with its metadata nor,
/// reading all files, with its data.
pub(crate) fn check(image: &Path) {
    let output = Command::new("fsck.erofs").arg("--extract").arg(image).output().unwrap();
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && !text.contains("<E>"), "{}: {text}", image.display());
}

/// A mounted image.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Mounts by the file itself, or through a loop device where the kernel (before 6.12) can't.
    pub(crate) fn new(image: &Path, target: &Path) -> Self {
        match rustix::mount::mount(image, target, "erofs", MountFlags::RDONLY, None) {
            Ok(()) => Self(target.to_owned()),
            Err(_) => Self::through_loop(image, target),
        }
    }

    /// Mounts through a loop device.
    pub(crate) fn through_loop(image: &Path, target: &Path) -> Self {
        run(Command::new("mount").args(["-t", "erofs", "-o", "ro,loop"]).arg(image).arg(target));
        Self(target.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}
