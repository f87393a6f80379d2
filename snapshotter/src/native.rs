//! The snapshotter `native`: each snapshot is a whole tree in a plain directory, made as a copy of
//! its parent's. It needs nothing of the kernel, and all the space and time that copies take.
//!
//! ```text
//! DIRECTORY/              0700
//!   ID/                   0700, one for each snapshot; ID is a small number
//!     fs/                 the tree
//! ```

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use berth_archive::{Limits, Lowers, Options, Whiteouts};
use berth_types::{Result, ResultExt};

use crate::contract::{CommitOptions, Kind, Mount};
use crate::directories::blocking;
use crate::form::Form;
use crate::numbered::Numbered;
use crate::overlay::{bind, commit_files};
use crate::piped::piped;
use crate::records::{Commit, Record};

/// Snapshots as copies.
pub type Native = Numbered<Copies>;

/// A whole tree for each snapshot.
pub struct Copies(PathBuf);

/// What is copied was limited when it was made.
const LIMITS: Limits = Limits { entries: u64::MAX, bytes: u64::MAX };

impl Copies {
    fn tree(&self, id: u64) -> PathBuf {
        self.0.join(id.to_string()).join("fs")
    }
}

#[async_trait]
impl Form for Copies {
    const NAME: &'static str = "native";
    const TABLES: (&'static str, &'static str) = ("snapshots/native", "snapshots/native/children");
    const STACKED: bool = false;

    fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    async fn fill(&self, id: u64, kind: Kind, parent: Option<u64>) -> Result<()> {
        let Some(parent) = parent.filter(|_| kind == Kind::Active) else { return Ok(()) };
        let (from, to) = (self.tree(parent), self.tree(id));
        blocking(move || {
            copy(&from, &to).context(|| format!("copy {} to {}", from.display(), to.display()))
        })
        .await
    }

    fn mounts(&self, record: &Record, parents: &[Record]) -> Vec<Mount> {
        let read_only = record.kind == Kind::View;
        let tree = match parents.first() {
            Some(parent) if read_only => self.files(parent),
            _ => self.files(record),
        };
        vec![bind(&tree, read_only)]
    }

    fn files(&self, record: &Record) -> PathBuf {
        self.tree(record.id)
    }

    async fn commit(&self, record: &Record, options: &CommitOptions) -> Result<Commit> {
        commit_files(self.files(record), options).await
    }
}

/// Makes the tree `from` in the empty directory `to`.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let open = |path: &Path| File::open(path).context(|| format!("open {}", path.display()));
    let (from, to) = (open(from)?, open(to)?);
    let applied = piped(
        |writer| berth_archive::diff(None, from.as_fd(), writer),
        |reader| {
            let options = Options { whiteouts: Whiteouts::Remove, limits: LIMITS };
            berth_archive::apply(reader, to.as_fd(), &options)
        },
    )?;
    // The archive has all but the root.
    berth_archive::settle(to.as_fd(), &Lowers::new([from.into()]), &applied)
}
