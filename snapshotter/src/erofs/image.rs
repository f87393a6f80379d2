//! The image of a layer that was made in a directory.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use berth_archive::{Limits, diff_upper};
use berth_erofs::Below;
use berth_types::{Digest, Fault, Result, ResultExt};
use rustix::fs::{Advice, fadvise};

use super::mount_image;
use crate::contract::Image;
use crate::directories::missing;
use crate::piped::piped;

/// The size of the unit of `st_blocks` (stat(2)), in bytes.
const BLOCK: u64 = 512;

/// What a client made in its snapshot was limited there.
const LIMITS: Limits = Limits { entries: u64::MAX, bytes: u64::MAX };

/// Writes what the overlay's upper directory `files` holds as the file `image`, and syncs it.
pub(super) fn write(files: &Path, image: &Path) -> Result<Image> {
    let what = || format!("make an image of {}", files.display());
    let upper = File::open(files).context(what)?;
    let root = Below::of(upper.as_fd()).context(what)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(image).context(what)?;
    let mut draft = piped(
        |writer| diff_upper(upper.as_fd(), writer),
        |reader| berth_erofs::write(reader, file, LIMITS),
    )
    .context(what)?;
    // The archive has all but the root. Whether whiteouts hide something was up to the overlay.
    draft.settle(|_| Ok(Some(root.clone())))?;
    let sealed = draft.seal()?;
    sync(image)?;
    Ok(Image { inodes: sealed.inodes, checksum: berth_erofs::checksum(&sealed.file)? })
}

/// Whether this kernel mounts images that are files on the filesystem of `directory`.
///
/// # Errors
/// Why it doesn't.
pub fn probe_erofs(directory: &Path) -> Result<()> {
    let what = || "mount a small erofs image";
    let image = directory.join(format!(".probe-{}.erofs", std::process::id()));
    let made = (|| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&image).context(what)?;
        let archive = [0; 1024];
        berth_erofs::write(&archive[..], file, LIMITS)?.seal()?;
        mount_image(&image).map(drop)
    })();
    std::fs::remove_file(&image).or_else(missing).context(what)?;
    made.context(what)
}

/// Syncs an image and the directory that has it.
pub(super) fn sync(image: &Path) -> Result<()> {
    let parent = image.parent().unwrap_or(image);
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    sync(image).and_then(|()| sync(parent)).context(|| format!("sync {}", image.display()))
}

/// Lets the kernel compare an image, which is on the disk, with its hashes whenever it is read from
/// there, where the filesystem can do so.
pub(super) fn protect(image: &Path) -> Result<()> {
    let protected = File::open(image).and_then(|file| berth_sys::verity::enable(&file));
    protected.map(drop).context(|| format!("enable fs-verity on {}", image.display()))
}

/// What an image takes on the disk.
pub(super) fn size(image: &Path) -> Result<u64> {
    let metadata = image.metadata().context(|| format!("examine {}", image.display()))?;
    Ok(metadata.blocks() * BLOCK)
}

/// Compares an image, as the disk has it, with what is recorded. One of a release that recorded no
/// checksum need only have bytes.
pub(super) fn check(image: &Path, recorded: Option<&Digest>) -> Option<Fault> {
    let file = match File::open(image) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(Fault::Missing),
        Err(error) => return Some(Fault::Unreadable(error.to_string())),
    };
    if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        return Some(Fault::Empty);
    }
    let recorded = recorded?;
    // The disk is asked, not what the kernel remembers of it. That it doesn't forget is no failure.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let found = berth_erofs::checksum(&file);
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    match found {
        Ok(found) => (found != *recorded).then_some(Fault::Differs),
        Err(error) => Some(Fault::Unreadable(error.message().to_owned())),
    }
}
