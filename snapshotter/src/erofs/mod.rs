//! The snapshotter `erofs`: each committed layer is one read-only file, mounted once for all that
//! is built on it.
//!
//! ```text
//! DIRECTORY/              0700
//!   ID/                   0700, one for each snapshot; ID is a small number
//!     fs/, work/          of active ones and views, as overlayfs needs them
//!     layer.erofs         of committed ones: the layer's image
//!     mnt/                where the image is mounted while a snapshot on top of it is in use
//! ```
//! Clients get what they get of the snapshotter `overlayfs`: an overlay mount, or a bind mount of
//! one layer. An image is synced before the record that names it; the directory that it was made
//! of is removed after. So a crash leaves a layer in one form or in both, and the next start
//! removes what is not recorded.
//!
//! The record has the checksum of the image, which [`check`](crate::Snapshotter::check) compares.
//! With fs-verity the kernel compares what it reads, too.

mod image;
mod layers;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use berth_store::Store;
use berth_types::{Fault, Result, ResultExt};

use crate::contract::{CommitOptions, Image, Kind, Mount, Usage};
use crate::directories::{blocking, missing};
use crate::form::{Form, check_directory};
use crate::numbered::Numbered;
use crate::overlay::stack;
use crate::records::{Commit, Record};
use layers::Layers;

pub use image::probe_erofs;
pub use layers::mount_image;

/// The name of a layer's image.
const IMAGE: &str = "layer.erofs";

/// Layers as images.
pub type Erofs = Numbered<Images>;

/// An image for each layer.
pub struct Images {
    directory: PathBuf,
    layers: Layers,
    verity: bool,
}

impl Numbered<Images> {
    /// As [`Numbered::open`], and enables fs-verity on the images that are made from now, where
    /// their filesystem has it.
    ///
    /// # Errors
    /// Those of the disk and of the database.
    pub fn with_verity(directory: &Path, store: Store) -> Result<Self> {
        let form = Images { verity: true, ..Images::new(directory) };
        Self::with_form(directory, store, form)
    }
}

impl Images {
    fn own(&self, id: u64) -> PathBuf {
        self.directory.join(id.to_string())
    }
}

#[async_trait]
impl Form for Images {
    const NAME: &'static str = "erofs";
    const TABLES: (&'static str, &'static str) = ("snapshots/erofs", "snapshots/erofs/children");

    fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), layers: Layers::new(directory), verity: false }
    }

    fn recover(&self, record: &Record) -> std::io::Result<()> {
        let own = self.own(record.id);
        if record.kind != Kind::Committed {
            return fs::remove_file(own.join(IMAGE)).or_else(missing);
        }
        fs::remove_dir_all(own.join("fs")).or_else(missing)?;
        fs::remove_dir_all(own.join("work")).or_else(missing)
    }

    fn note_use(&self, id: u64, parents: &[u64]) {
        self.layers.note_use(id, parents);
    }

    fn found(&self, id: u64) -> Result<()> {
        self.layers.unmount_unused(id)
    }

    async fn hold(&self, id: u64, parents: Vec<u64>) -> Result<()> {
        self.layers.hold(id, parents).await
    }

    fn release(&self, id: u64) {
        self.layers.release(id);
    }

    async fn forget(&self, id: u64) -> Result<()> {
        self.layers.release(id);
        self.layers.forget(id).await
    }

    async fn tidy(&self) -> Result<()> {
        self.layers.tidy().await
    }

    fn mounts(&self, record: &Record, parents: &[Record]) -> Vec<Mount> {
        let lowers: Vec<_> = parents.iter().map(|parent| self.layers.target(parent.id)).collect();
        vec![stack(record, &self.own(record.id), &lowers)]
    }

    fn files(&self, record: &Record) -> PathBuf {
        match record.kind {
            Kind::Committed => self.layers.target(record.id),
            Kind::Active | Kind::View => self.own(record.id).join("fs"),
        }
    }

    fn open(&self, record: &Record) -> Result<OwnedFd> {
        if record.kind == Kind::Committed {
            return mount_image(&self.own(record.id).join(IMAGE));
        }
        let files = self.files(record);
        File::open(&files).map(OwnedFd::from).context(|| format!("open {}", files.display()))
    }

    fn image(&self, id: u64) -> Option<PathBuf> {
        Some(self.own(id).join(IMAGE))
    }

    fn check(&self, record: &Record) -> Option<Fault> {
        match record.kind {
            Kind::Committed => {
                image::check(&self.own(record.id).join(IMAGE), record.checksum.as_ref())
            }
            Kind::Active | Kind::View => check_directory(&self.files(record)),
        }
    }

    async fn commit(&self, record: &Record, options: &CommitOptions) -> Result<Commit> {
        let own = self.own(record.id);
        let (given, synced, verity) = (options.image.clone(), options.synced, self.verity);
        blocking(move || {
            let image = own.join(IMAGE);
            let Image { inodes, checksum } = match given {
                Some(given) => {
                    if !synced {
                        image::sync(&image)?;
                    }
                    given
                }
                None => image::write(&own.join("fs"), &image)?,
            };
            if verity {
                image::protect(&image)?;
            }
            let usage = Usage { size: image::size(&image)?, inodes };
            Ok(Commit { usage, checksum: Some(checksum) })
        })
        .await
    }

    async fn committed(&self, id: u64, done: bool) -> Result<()> {
        let own = self.own(id);
        blocking(move || {
            if !done {
                return fs::remove_file(own.join(IMAGE))
                    .or_else(missing)
                    .context(|| "remove an image not committed");
            }
            let removed = fs::remove_dir_all(own.join("fs"))
                .or_else(missing)
                .and_then(|()| fs::remove_dir_all(own.join("work")).or_else(missing));
            // The snapshot is committed; what is left of its directory goes with it or at a start.
            if let Err(error) = removed {
                tracing::warn!(id, %error, "a committed snapshot takes more space than it needs");
            }
            Ok(())
        })
        .await
    }
}
