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

mod commit;
mod image;
mod layers;

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use berth_store::Store;
use berth_types::{Error, Result, ResultExt};
use tokio::sync::RwLock;

use crate::contract::{
    CommitOptions, Info, Kind, Mount, PrepareOptions, Relabel, Snapshotter, Usage, VOLATILE,
};
use crate::directories::{blocking, directories, durability, make_directories, missing};
use crate::records::{Record, Records};
use crate::usage;
use layers::Layers;

/// The name of a layer's image.
const IMAGE: &str = "layer.erofs";

/// Layers as images.
pub struct Erofs {
    directory: PathBuf,
    records: Records,
    layers: Layers,
    next_id: AtomicU64,
    /// Snapshots being committed, by id: two commits of one would write one image.
    committing: Mutex<HashSet<u64>>,
    /// Shared while a directory is there and its record is not yet; exclusive to look for orphans.
    making: RwLock<()>,
}

impl Erofs {
    /// Opens the snapshots below `directory`, which is made if it is missing. What no record names
    /// is unmounted and removed. What a power cut took from an active snapshot or a view is made
    /// again, empty.
    ///
    /// # Errors
    /// Those of the disk and of the database.
    pub fn open(directory: &Path, store: Store) -> Result<Self> {
        let what = || format!("open the snapshots in {}", directory.display());
        DirBuilder::new().recursive(true).mode(0o700).create(directory).context(what)?;
        let records = Records::new(store, "snapshots/erofs", "snapshots/erofs/children");
        let layers = Layers::new(directory);
        let recorded = records.list("")?;
        for (key, record) in &recorded {
            recover(&directory.join(record.id.to_string()), key, record).context(what)?;
            if record.kind != Kind::Committed {
                layers.note_use(record.id, &parents(&records, key)?);
            }
        }
        let used: HashSet<u64> = recorded.into_iter().map(|(_, record)| record.id).collect();
        let mut newest = used.iter().copied().max().unwrap_or(0);
        for id in directories(directory).context(what)? {
            newest = newest.max(id);
            layers.unmount_unused(id)?;
            if !used.contains(&id) {
                tracing::info!(id, "removing the directory of a snapshot without a record");
                fs::remove_dir_all(directory.join(id.to_string())).context(what)?;
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            records,
            layers,
            next_id: AtomicU64::new(newest + 1),
            committing: Mutex::default(),
            making: RwLock::new(()),
        })
    }

    async fn create(
        &self,
        kind: Kind,
        key: &str,
        parent: &str,
        options: PrepareOptions,
    ) -> Result<Vec<Mount>> {
        let parents = if parent.is_empty() { Vec::new() } else { self.records.chain(parent)? };
        // An active parent is refused with its record; until then it must not be mounted.
        let ids: Vec<u64> = match parents.first().map(|parent| parent.kind) {
            Some(Kind::Committed) => parents.iter().map(|parent| parent.id).collect(),
            _ => Vec::new(),
        };
        let _making = self.making.read().await;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let made = self.make(id, kind, ids).await;
        let now = SystemTime::now();
        let record = Record {
            id,
            kind,
            parent: parent.to_owned(),
            labels: options.labels,
            created: now,
            updated: now,
            usage: Usage::default(),
        };
        let mounts = self.mounts_of(&record, &parents);
        let recorded = match made {
            Ok(()) => self.records.create(key, record.clone(), durability(&record)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            self.layers.release(id).await?;
            self.remove_directory(id).await?;
            return Err(error);
        }
        Ok(mounts)
    }

    /// Mounts the layers that the new snapshot `id` is built on, the uppermost first, and makes
    /// its directories.
    async fn make(&self, id: u64, kind: Kind, parents: Vec<u64>) -> Result<()> {
        let below = parents.first().map(|parent| self.layers.target(*parent));
        self.layers.hold(id, parents).await?;
        let directory = self.directory.join(id.to_string());
        blocking(move || {
            make_directories(&directory, kind, below.as_deref())
                .context(|| format!("make {}", directory.display()))
        })
        .await
    }

    /// The mounts of an active snapshot or view whose parents are `parents`, nearest first. Kinds
    /// and options are those of the snapshotter `overlayfs`.
    fn mounts_of(&self, record: &Record, parents: &[Record]) -> Vec<Mount> {
        let read_only = record.kind == Kind::View;
        let own = self.directory.join(record.id.to_string());
        let bind = |source: PathBuf| Mount {
            kind: "bind".to_owned(),
            source: source.display().to_string(),
            options: vec![if read_only { "ro" } else { "rw" }.to_owned(), "rbind".to_owned()],
        };
        match parents {
            [] => return vec![bind(own.join("fs"))],
            [parent] if read_only => return vec![bind(self.layers.target(parent.id))],
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
        let target = |parent: &Record| self.layers.target(parent.id).display().to_string();
        let lower: Vec<_> = parents.iter().map(target).collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        vec![Mount { kind: "overlay".to_owned(), source: "overlay".to_owned(), options }]
    }

    /// Removes what may be many files, off the async threads.
    async fn remove_directory(&self, id: u64) -> Result<()> {
        let directory = self.directory.join(id.to_string());
        blocking(move || {
            let removed = fs::remove_dir_all(&directory).or_else(missing);
            removed.context(|| format!("remove {}", directory.display()))
        })
        .await
    }
}

#[async_trait]
impl Snapshotter for Erofs {
    fn name(&self) -> &'static str {
        "erofs"
    }

    async fn stat(&self, key: &str) -> Result<Info> {
        Ok(self.records.get(key)?.into_info(key))
    }

    async fn update(&self, key: &str, change: Relabel) -> Result<Info> {
        Ok(self.records.update(key, change).await?.into_info(key))
    }

    async fn usage(&self, key: &str) -> Result<Usage> {
        let record = self.records.get(key)?;
        match record.kind {
            Kind::Committed => Ok(record.usage),
            Kind::View => Ok(Usage::default()),
            Kind::Active => {
                let files = self.directory.join(record.id.to_string()).join("fs");
                let what = format!("measure {}", files.display());
                blocking(move || usage::measure(&files).context(|| what)).await
            }
        }
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let chain = self.records.chain(key)?;
        match chain.split_first() {
            Some((record, parents)) if record.kind != Kind::Committed => {
                // Mounts don't outlive the machine.
                let ids = parents.iter().map(|parent| parent.id).collect();
                self.layers.hold(record.id, ids).await?;
                Ok(self.mounts_of(record, parents))
            }
            _ => Err(Error::failed_precondition(format!(
                "snapshot {key:?} is committed: make a view of it to mount it"
            ))),
        }
    }

    async fn prepare(
        &self,
        key: &str,
        parent: &str,
        options: PrepareOptions,
    ) -> Result<Vec<Mount>> {
        self.create(Kind::Active, key, parent, options).await
    }

    async fn view(&self, key: &str, parent: &str, options: PrepareOptions) -> Result<Vec<Mount>> {
        self.create(Kind::View, key, parent, options).await
    }

    async fn commit(&self, name: &str, key: &str, options: CommitOptions) -> Result<()> {
        self.commit_image(name, key, options).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let durability = durability(&self.records.get(key)?);
        let record = self.records.remove(key, durability).await?;
        // The snapshot is gone for its clients; what is left of it is found by a cleanup.
        let released = self.layers.forget(record.id).await;
        if let Err(error) = released.and(self.remove_directory(record.id).await) {
            tracing::warn!(key, %error, "a removed snapshot still takes space");
        }
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Info>> {
        let records = self.records.list(prefix)?;
        Ok(records.into_iter().map(|(key, record)| record.into_info(&key)).collect())
    }

    async fn cleanup(&self) -> Result<()> {
        let _alone = self.making.write().await;
        let recorded = self.records.list("")?;
        for (_, record) in &recorded {
            if record.kind == Kind::Committed {
                self.layers.release(record.id).await?;
            }
        }
        let used: HashSet<u64> = recorded.into_iter().map(|(_, record)| record.id).collect();
        let found = directories(&self.directory).context(|| "list the snapshots' directories")?;
        for id in found.into_iter().filter(|id| !used.contains(id)) {
            self.layers.forget(id).await?;
            self.remove_directory(id).await?;
        }
        Ok(())
    }

    async fn changes(&self, key: &str) -> Result<PathBuf> {
        let record = self.records.get(key)?;
        if record.kind == Kind::Active {
            return Ok(self.directory.join(record.id.to_string()).join("fs"));
        }
        Err(Error::failed_precondition(format!("snapshot {key:?} is not active: it can't change")))
    }

    /// Layers that nothing else uses stay mounted until the next [`Snapshotter::cleanup`].
    async fn layers(&self, key: &str) -> Result<Vec<PathBuf>> {
        let chain = self.records.chain(key)?;
        let committed = chain.iter().filter(|record| record.kind == Kind::Committed);
        let ids = committed.map(|record| record.id).collect();
        self.layers.hold(chain[0].id, ids).await?;
        let path = |record: &Record| match record.kind {
            Kind::Committed => self.layers.target(record.id),
            Kind::Active | Kind::View => self.directory.join(record.id.to_string()).join("fs"),
        };
        Ok(chain.iter().map(path).collect())
    }
}

/// The ids of the layers that a snapshot is built on.
fn parents(records: &Records, key: &str) -> Result<Vec<u64>> {
    Ok(records.chain(key)?.iter().skip(1).map(|parent| parent.id).collect())
}

/// Sets right what a crash left of a recorded snapshot in its directory `own`.
fn recover(own: &Path, key: &str, record: &Record) -> std::io::Result<()> {
    if record.kind == Kind::Committed {
        fs::remove_dir_all(own.join("fs")).or_else(missing)?;
        return fs::remove_dir_all(own.join("work")).or_else(missing);
    }
    fs::remove_file(own.join(IMAGE)).or_else(missing)?;
    if !own.join("fs").exists() {
        tracing::warn!(key, "the snapshot's files did not reach the disk: starting empty");
        fs::remove_dir_all(own).or_else(missing)?;
        make_directories(own, record.kind, None)?;
    }
    Ok(())
}
