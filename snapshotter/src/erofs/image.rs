//! The image of a layer that was made in a directory.

use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use berth_archive::{Limits, Time, Xattr, diff_upper};
use berth_erofs::Below;
use berth_types::{Error, Kind, Result, ResultExt};
use rustix::buffer::spare_capacity;

use crate::Usage;

/// The size of the unit of `st_blocks` (stat(2)), in bytes.
const BLOCK: u64 = 512;

/// The longest list of attributes, and the longest value, that the kernel has (`xattr(7)`).
const MAX_XATTR: usize = 64 << 10;

/// What a client made in its snapshot was limited there.
const LIMITS: Limits = Limits { entries: u64::MAX, bytes: u64::MAX };

/// Writes what the overlay's upper directory `files` holds as the file `image`, and syncs it and
/// the directory that has it.
pub(super) fn write(files: &Path, image: &Path) -> Result<Usage> {
    let what = || format!("make an image of {}", files.display());
    let upper = File::open(files).context(what)?;
    let root = root(&upper).context(what)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(image).context(what)?;
    let (reader, writer) = std::io::pipe().context(what)?;
    let (packed, draft) = thread::scope(|scope| {
        let packing = scope.spawn(|| diff_upper(upper.as_fd(), BufWriter::new(writer)));
        let draft = berth_erofs::write(reader, file, LIMITS);
        (packing.join().unwrap_or_else(|_| Err(Error::internal("a thread failed"))), draft)
    });
    let mut draft = match (packed, draft) {
        (Ok(()), draft) => draft?,
        // Whichever failed first is why the other did.
        (Err(_), Err(error)) if error.kind() != Kind::DataLoss => return Err(error.context(what())),
        (Err(error), _) => return Err(error.context(what())),
    };
    // The archive has all but the root. Whether whiteouts hide something was up to the overlay.
    draft.settle(|_| Ok(Some(root.clone())))?;
    let sealed = draft.seal()?;
    sealed.file.sync_all().context(what)?;
    let parent = image.parent().unwrap_or(image);
    File::open(parent).and_then(|parent| parent.sync_all()).context(what)?;
    let size = sealed.file.metadata().context(what)?.blocks() * BLOCK;
    Ok(Usage { size, inodes: sealed.inodes })
}

/// What the root of a layer is.
fn root(directory: &File) -> std::io::Result<Below> {
    let metadata = directory.metadata()?;
    let mut names = Vec::with_capacity(MAX_XATTR);
    rustix::fs::flistxattr(directory, spare_capacity(&mut names))?;
    let mut xattrs = Vec::new();
    for name in names.split(|byte| *byte == 0).filter_map(|name| str::from_utf8(name).ok()) {
        if name.is_empty() || name.starts_with("trusted.overlay.") {
            continue;
        }
        let mut value = Vec::with_capacity(MAX_XATTR);
        rustix::fs::fgetxattr(directory, name, spare_capacity(&mut value))?;
        xattrs.push(Xattr { name: name.to_owned(), value });
    }
    Ok(Below {
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: Time { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() },
        xattrs,
    })
}
