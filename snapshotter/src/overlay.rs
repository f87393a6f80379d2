//! The snapshotter `overlayfs`: a directory for each layer, stacked by the kernel's overlayfs.
//!
//! ```text
//! DIRECTORY/              0700
//!   ID/                   0700, one for each snapshot; ID is a small number
//!     fs/                 the snapshot's own files, in overlayfs's form
//!     work/               overlayfs's scratch space, for active ones
//! ```

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use berth_types::Result;

use crate::contract::{CommitOptions, Kind, Mount, VOLATILE};
use crate::directories::{blocking, sync};
use crate::form::Form;
use crate::numbered::{Numbered, measure};
use crate::records::{Commit, Record};

/// Layers as directories, on overlayfs.
pub type Overlay = Numbered<Directories>;

/// A directory for each layer.
pub struct Directories(PathBuf);

#[async_trait]
impl Form for Directories {
    const NAME: &'static str = "overlayfs";
    const TABLES: (&'static str, &'static str) =
        ("snapshots/overlayfs", "snapshots/overlayfs/children");

    fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    fn mounts(&self, record: &Record, parents: &[Record]) -> Vec<Mount> {
        let lowers: Vec<_> = parents.iter().map(|parent| self.files(parent)).collect();
        vec![stack(record, &self.0.join(record.id.to_string()), &lowers)]
    }

    fn files(&self, record: &Record) -> PathBuf {
        self.0.join(record.id.to_string()).join("fs")
    }

    async fn commit(&self, record: &Record, options: &CommitOptions) -> Result<Commit> {
        commit_files(self.files(record), options).await
    }
}

/// Puts a layer that stays files on the disk, and measures it.
pub(crate) async fn commit_files(files: PathBuf, options: &CommitOptions) -> Result<Commit> {
    if !options.synced {
        let files = files.clone();
        blocking(move || sync(&files)).await?;
    }
    let usage = match options.usage {
        Some(usage) => usage,
        None => measure(files).await?,
    };
    Ok(Commit { usage, checksum: None })
}

/// The mount of an active snapshot or view whose directories are in `own`, on the layers that are
/// at `lowers`, the uppermost first.
pub(crate) fn stack(record: &Record, own: &Path, lowers: &[PathBuf]) -> Mount {
    let read_only = record.kind == Kind::View;
    match lowers {
        [] => return bind(&own.join("fs"), read_only),
        [only] if read_only => return bind(only, true),
        _ => {}
    }
    let mut options = vec!["index=off".to_owned()];
    if !read_only {
        options.push(format!("workdir={}", own.join("work").display()));
        options.push(format!("upperdir={}", own.join("fs").display()));
        if record.labels.contains_key(VOLATILE) {
            options.push("volatile".to_owned());
        }
    }
    let lowers: Vec<_> = lowers.iter().map(|lower| lower.display().to_string()).collect();
    options.push(format!("lowerdir={}", lowers.join(":")));
    Mount { kind: "overlay".to_owned(), source: "overlay".to_owned(), options }
}

/// A bind mount.
pub(crate) fn bind(source: &Path, read_only: bool) -> Mount {
    Mount {
        kind: "bind".to_owned(),
        source: source.display().to_string(),
        options: vec![if read_only { "ro" } else { "rw" }.to_owned(), "rbind".to_owned()],
    }
}
