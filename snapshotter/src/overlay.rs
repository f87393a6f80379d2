//! The snapshotter `overlayfs`: a directory for each layer, stacked by the kernel's overlayfs.
//!
//! ```text
//! DIRECTORY/              0700
//!   ID/                   0700, one for each snapshot; ID is a small number
//!     fs/                 the snapshot's own files, in overlayfs's form
//!     work/               overlayfs's scratch space, for active ones
//! ```
//! Ids are small so that 128 layers fit the one page that mount(2) takes. A directory is made
//! before the record that names it and removed after that record is gone, so a crash leaves
//! nothing worse than an orphan, which the next start removes.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use berth_store::Store;
use berth_types::{Error, Result, ResultExt};
use tokio::sync::RwLock;

use crate::contract::{
    CommitOptions, Info, Kind, Mount, PrepareOptions, Relabel, Snapshotter, Usage, VOLATILE,
};
use crate::directories::{blocking, directories, durability, make_directories, missing, sync};
use crate::records::{Record, Records};
use crate::usage;

/// Layers on overlayfs.
pub struct Overlay {
    directory: PathBuf,
    records: Records,
    next_id: AtomicU64,
    /// Shared while a directory is there and its record is not yet; exclusive to look for orphans.
    making: RwLock<()>,
}

impl Overlay {
    /// Opens the snapshots below `directory`, which is made if it is missing. Directories that no
    /// record names are removed. Those that a power cut took from an active snapshot or a view are
    /// made again, empty.
    ///
    /// # Errors
    /// Those of the disk and of the database.
    pub fn open(directory: &Path, store: Store) -> Result<Self> {
        let what = || format!("open the snapshots in {}", directory.display());
        DirBuilder::new().recursive(true).mode(0o700).create(directory).context(what)?;
        let records = Records::new(store, "snapshots/overlayfs", "snapshots/overlayfs/children");
        let recorded = records.list("")?;
        for (key, record) in &recorded {
            let own = directory.join(record.id.to_string());
            if record.kind != Kind::Committed && !own.join("fs").exists() {
                tracing::warn!(key, "the snapshot's files did not reach the disk: starting empty");
                fs::remove_dir_all(&own).or_else(missing).context(what)?;
                make_directories(&own, record.kind, None).context(what)?;
            }
        }
        let used: HashSet<u64> = recorded.into_iter().map(|(_, record)| record.id).collect();
        let mut newest = used.iter().copied().max().unwrap_or(0);
        for id in directories(directory).context(what)? {
            newest = newest.max(id);
            if !used.contains(&id) {
                tracing::info!(id, "removing the directory of a snapshot without a record");
                fs::remove_dir_all(directory.join(id.to_string())).context(what)?;
            }
        }
        let next_id = AtomicU64::new(newest + 1);
        let making = RwLock::new(());
        Ok(Self { directory: directory.to_owned(), records, next_id, making })
    }

    async fn create(
        &self,
        kind: Kind,
        key: &str,
        parent: &str,
        options: PrepareOptions,
    ) -> Result<Vec<Mount>> {
        let parents = if parent.is_empty() { Vec::new() } else { self.records.chain(parent)? };
        let _making = self.making.read().await;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory.join(id.to_string());
        let below = parents.first().map(|parent| self.files(parent.id));
        make_directories(&directory, kind, below.as_deref()).map_err(|error| {
            let _ = fs::remove_dir_all(&directory);
            Error::io(format!("make the directory of snapshot {key:?}"), &error)
        })?;
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
        let durability = durability(&record);
        if let Err(error) = self.records.create(key, record, durability).await {
            self.remove_directory(id).await?;
            return Err(error);
        }
        Ok(mounts)
    }

    /// The mounts of an active snapshot or view whose parents are `parents`, nearest first. Kinds
    /// and options are those that containerd's overlayfs snapshotter gives, which clients parse.
    fn mounts_of(&self, record: &Record, parents: &[Record]) -> Vec<Mount> {
        let read_only = record.kind == Kind::View;
        let bind = |id| Mount {
            kind: "bind".to_owned(),
            source: self.files(id).display().to_string(),
            options: vec![if read_only { "ro" } else { "rw" }.to_owned(), "rbind".to_owned()],
        };
        match parents {
            [] => return vec![bind(record.id)],
            [parent] if read_only => return vec![bind(parent.id)],
            _ => {}
        }
        let mut options = vec!["index=off".to_owned()];
        if !read_only {
            let work = self.directory.join(record.id.to_string()).join("work");
            options.push(format!("workdir={}", work.display()));
            options.push(format!("upperdir={}", self.files(record.id).display()));
            if record.labels.contains_key(VOLATILE) {
                options.push("volatile".to_owned());
            }
        }
        let lower: Vec<_> =
            parents.iter().map(|parent| self.files(parent.id).display().to_string()).collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        vec![Mount { kind: "overlay".to_owned(), source: "overlay".to_owned(), options }]
    }

    fn files(&self, id: u64) -> PathBuf {
        self.directory.join(id.to_string()).join("fs")
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

    async fn measure(&self, id: u64) -> Result<Usage> {
        let files = self.files(id);
        blocking(move || usage::measure(&files).context(|| format!("measure {}", files.display())))
            .await
    }
}

#[async_trait]
impl Snapshotter for Overlay {
    fn name(&self) -> &'static str {
        "overlayfs"
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
            Kind::Active => self.measure(record.id).await,
            Kind::View => Ok(Usage::default()),
        }
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let chain = self.records.chain(key)?;
        match chain.split_first() {
            Some((record, parents)) if record.kind != Kind::Committed => {
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
        let record = self.records.get(key)?;
        if !options.synced {
            let files = self.files(record.id);
            blocking(move || sync(&files)).await?;
        }
        let usage = match options.usage {
            Some(usage) => usage,
            None => self.measure(record.id).await?,
        };
        self.records.commit(name, key, usage, options).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let durability = durability(&self.records.get(key)?);
        let record = self.records.remove(key, durability).await?;
        // The snapshot is gone for its clients; what is left of it is found by a cleanup.
        if let Err(error) = self.remove_directory(record.id).await {
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
        let used: HashSet<u64> =
            self.records.list("")?.into_iter().map(|(_, record)| record.id).collect();
        let found = directories(&self.directory).context(|| "list the snapshots' directories")?;
        for id in found.into_iter().filter(|id| !used.contains(id)) {
            self.remove_directory(id).await?;
        }
        Ok(())
    }

    async fn changes(&self, key: &str) -> Result<PathBuf> {
        let record = self.records.get(key)?;
        if record.kind == Kind::Active {
            return Ok(self.files(record.id));
        }
        Err(Error::failed_precondition(format!("snapshot {key:?} is not active: it can't change")))
    }

    async fn layers(&self, key: &str) -> Result<Vec<PathBuf>> {
        Ok(self.records.chain(key)?.iter().map(|record| self.files(record.id)).collect())
    }
}
