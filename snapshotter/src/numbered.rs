//! What all snapshotters have in common that keep each snapshot in a directory named by a number:
//! everything but the form that a layer has in it.
//!
//! A directory is made before the record that names it and removed after that record is gone, so a
//! crash leaves nothing worse than an orphan, which the next start removes. Numbers are small so
//! that 128 layers fit the one page that mount(2) takes.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use berth_store::Store;
use berth_types::{Error, Fault, Kind as Failure, Result, ResultExt};
use futures_util::stream::{self, StreamExt};
use tokio::sync::RwLock;

use crate::contract::{
    CommitOptions, Info, Kind, Mount, PrepareOptions, Relabel, Snapshotter, Usage,
};
use crate::directories::{blocking, directories, durability, make_directories, missing};
use crate::form::Form;
use crate::records::{Record, Records};
use crate::{strays, usage};

/// How many removed snapshots give their space back at once: where the filesystem discards freed
/// blocks right away (ext4(5), `discard`), each file's removal waits for the device.
const CLEARED_AT_ONCE: usize = 8;

/// Snapshots in numbered directories.
pub struct Numbered<F> {
    directory: PathBuf,
    records: Records,
    form: Arc<F>,
    next_id: AtomicU64,
    /// Snapshots being committed, by id: two commits of one would make one layer.
    committing: Mutex<HashSet<u64>>,
    /// Shared while a directory is there and its record is not yet, or not any more; exclusive to
    /// look for orphans.
    making: RwLock<()>,
}

impl<F: Form> Numbered<F> {
    /// Opens the snapshots below `directory`, which is made if it is missing. Directories that no
    /// record names are removed. Those that a power cut took from an active snapshot or a view are
    /// made again, empty.
    ///
    /// # Errors
    /// Those of the disk and of the database.
    pub fn open(directory: &Path, store: Store) -> Result<Self> {
        Self::with_form(directory, store, F::new(directory))
    }

    pub(crate) fn with_form(directory: &Path, store: Store, form: F) -> Result<Self> {
        let what = || format!("open the snapshots in {}", directory.display());
        DirBuilder::new().recursive(true).mode(0o700).create(directory).context(what)?;
        let records = Records::new(store, F::TABLES.0, F::TABLES.1);
        let this = Self {
            directory: directory.to_owned(),
            form: Arc::new(form),
            next_id: AtomicU64::new(0),
            committing: Mutex::default(),
            making: RwLock::default(),
            records,
        };
        let recorded = this.records.list("")?;
        for (key, record) in &recorded {
            this.recover(key, record).context(what)?;
        }
        let used: HashSet<u64> = recorded.into_iter().map(|(_, record)| record.id).collect();
        let mut newest = used.iter().copied().max().unwrap_or(0);
        for id in directories(directory).context(what)? {
            newest = newest.max(id);
            this.form.found(id)?;
            if !used.contains(&id) {
                tracing::info!(id, "removing the directory of a snapshot without a record");
                fs::remove_dir_all(this.own(id)).context(what)?;
            }
        }
        this.next_id.store(newest + 1, Ordering::Relaxed);
        Ok(this)
    }

    fn recover(&self, key: &str, record: &Record) -> Result<()> {
        if record.kind != Kind::Committed {
            let parents: Vec<_> = self.records.chain(key)?.iter().skip(1).map(id).collect();
            self.form.note_use(record.id, &parents);
            let own = self.own(record.id);
            if !own.join("fs").exists() {
                tracing::warn!(key, "the snapshot's files did not reach the disk: starting empty");
                let made = fs::remove_dir_all(&own).or_else(missing);
                made.and_then(|()| make_directories(&own, record.kind, None))
                    .context(|| format!("make {}", own.display()))?;
            }
        }
        self.form.recover(record).context(|| format!("recover snapshot {key:?}"))
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
        let made = self.make(id, kind, &parents).await;
        let now = SystemTime::now();
        let record = Record {
            id,
            kind,
            parent: parent.to_owned(),
            labels: options.labels,
            created: now,
            updated: now,
            usage: Usage::default(),
            checksum: None,
        };
        let mounts = self.form.mounts(&record, &parents);
        let durability = durability(&record);
        let recorded = match made {
            Ok(()) => self.records.create(key, record, durability).await,
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            self.clear(id).await?;
            return Err(error);
        }
        Ok(mounts)
    }

    async fn make(&self, id: u64, kind: Kind, parents: &[Record]) -> Result<()> {
        let parent = match parents.first() {
            // An active parent is refused with its record; until then it must not be used.
            Some(parent) if parent.kind != Kind::Committed => None,
            Some(parent) => {
                self.form.hold(id, parents.iter().map(self::id).collect()).await?;
                Some(parent)
            }
            None => None,
        };
        let below = parent.map(|parent| self.form.files(parent));
        let directory = self.own(id);
        let made = blocking(move || {
            make_directories(&directory, kind, below.as_deref())
                .context(|| format!("make {}", directory.display()))
        });
        made.await?;
        self.form.fill(id, kind, parent.map(|parent| parent.id)).await
    }

    /// Removes what a snapshot without a record has.
    async fn clear(&self, id: u64) -> Result<()> {
        self.form.forget(id).await?;
        let directory = self.own(id);
        // These may be many files.
        blocking(move || {
            let removed = fs::remove_dir_all(&directory).or_else(missing);
            removed.context(|| format!("remove {}", directory.display()))
        })
        .await
    }

    /// Removes a snapshot's record; what it has is for [`Numbered::clear_away`] to remove.
    async fn unrecord(&self, key: &str) -> Result<u64> {
        let durability = durability(&self.records.get(key)?);
        self.records.remove(key, durability).await.map(|record| record.id)
    }

    /// As [`Numbered::clear`]. The snapshot is gone for its clients: what is left of it is found
    /// by a cleanup.
    async fn clear_away(&self, key: &str, id: u64) {
        if let Err(error) = self.clear(id).await {
            tracing::warn!(key, %error, "a removed snapshot still takes space");
        }
    }

    async fn commit_alone(&self, name: &str, key: &str, options: CommitOptions) -> Result<u64> {
        let id = self.records.get(key)?.id;
        let Some(_alone) = Committing::begin(&self.committing, id) else {
            return Err(Error::failed_precondition(format!(
                "snapshot {key:?} is being committed already"
            )));
        };
        // Whoever was alone before may have ended just now.
        let record = self.records.get(key)?;
        if record.kind != Kind::Active {
            return Err(not_active(key));
        }
        if !F::STACKED && options.parent.as_ref().is_some_and(|parent| *parent != record.parent) {
            return Err(Error::unimplemented(format!(
                "snapshotter {} takes no parent at commit: prepare {key:?} on it",
                F::NAME
            )));
        }
        let committed = match self.form.commit(&record, &options).await {
            Ok(made) => self.records.commit(name, key, made, options).await,
            Err(error) => Err(error),
        };
        self.form.committed(record.id, committed.is_ok()).await?;
        committed.map(|()| record.id)
    }

    /// The numbers that records have.
    fn used(&self) -> Result<HashSet<u64>> {
        Ok(self.records.list("")?.into_iter().map(|(_, record)| record.id).collect())
    }

    /// Where a snapshot's directories are.
    fn own(&self, id: u64) -> PathBuf {
        self.directory.join(id.to_string())
    }
}

#[async_trait]
impl<F: Form> Snapshotter for Numbered<F> {
    fn name(&self) -> &'static str {
        F::NAME
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
            Kind::Active => measure(self.form.files(&record)).await,
        }
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let chain = self.records.chain(key)?;
        match chain.split_first() {
            Some((record, parents)) if record.kind != Kind::Committed => {
                // What is held doesn't outlive the machine.
                self.form.hold(record.id, parents.iter().map(id).collect()).await?;
                Ok(self.form.mounts(record, parents))
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
        let id = self.commit_alone(name, key, options).await?;
        self.form.release(id);
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<()> {
        // Until its directory is gone, that is no stray.
        let _removing = self.making.read().await;
        let id = self.unrecord(key).await?;
        self.clear_away(key, id).await;
        Ok(())
    }

    async fn remove_all(&self, keys: &[String]) -> Vec<Result<()>> {
        let _removing = self.making.read().await;
        let (mut results, mut unrecorded) = (Vec::with_capacity(keys.len()), Vec::new());
        for key in keys {
            let gone = self.unrecord(key).await;
            results.push(gone.map(|id| unrecorded.push((key, id))));
        }
        stream::iter(unrecorded)
            .for_each_concurrent(CLEARED_AT_ONCE, |(key, id)| self.clear_away(key, id))
            .await;
        results
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Info>> {
        let records = self.records.list(prefix)?;
        Ok(records.into_iter().map(|(key, record)| record.into_info(&key)).collect())
    }

    async fn cleanup(&self) -> Result<()> {
        let _alone = self.making.write().await;
        let used = self.used()?;
        let found = directories(&self.directory).context(|| "list the snapshots' directories")?;
        for id in found.into_iter().filter(|id| !used.contains(id)) {
            self.clear(id).await?;
        }
        self.form.tidy().await
    }

    async fn changes(&self, key: &str) -> Result<PathBuf> {
        let record = self.records.get(key)?;
        match record.kind {
            Kind::Active => Ok(self.form.files(&record)),
            _ => Err(not_active(key)),
        }
    }

    fn rebases(&self) -> bool {
        F::STACKED
    }

    async fn image(&self, key: &str) -> Result<Option<PathBuf>> {
        let record = self.records.get(key)?;
        match record.kind {
            Kind::Active if record.parent.is_empty() => Ok(self.form.image(record.id)),
            Kind::Active => Ok(None),
            _ => Err(not_active(key)),
        }
    }

    async fn layer_image(&self, key: &str) -> Result<Option<File>> {
        let record = self.records.get(key)?;
        match self.form.image(record.id) {
            Some(path) if record.kind == Kind::Committed => {
                blocking(move || {
                    File::open(&path).map(Some).context(|| format!("open {}", path.display()))
                })
                .await
            }
            _ => Ok(None),
        }
    }

    async fn layers(&self, key: &str) -> Result<Vec<OwnedFd>> {
        let mut chain = self.records.chain(key)?;
        if !F::STACKED {
            // A view has nothing of its own.
            let is_view = chain[0].kind == Kind::View && chain.len() > 1;
            chain = vec![chain.swap_remove(usize::from(is_view))];
        }
        let form = self.form.clone();
        blocking(move || chain.iter().map(|record| form.open(record)).collect()).await
    }

    async fn check(&self, key: &str) -> Result<Option<Fault>> {
        let record = match self.records.get(key) {
            Err(error) if error.kind() == Failure::NotFound => return Ok(None),
            record => record?,
        };
        let (form, looked_at) = (self.form.clone(), record.clone());
        let Some(fault) = blocking(move || Ok(form.check(&looked_at))).await? else {
            return Ok(None);
        };
        // A record goes before its files do, and changes with its kind.
        match self.records.get(key) {
            Ok(now) if now.id == record.id && now.kind == record.kind => Ok(Some(fault)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == Failure::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn strays(&self) -> Result<Vec<PathBuf>> {
        let _alone = self.making.write().await;
        strays::find(&self.directory, &self.used()?)
    }

    async fn remove_strays(&self) -> Result<()> {
        let _alone = self.making.write().await;
        for stray in strays::find(&self.directory, &self.used()?)? {
            match strays::id(&self.directory, &stray) {
                Some(id) => self.clear(id).await?,
                None => blocking(move || strays::remove(&stray)).await?,
            }
        }
        Ok(())
    }

    async fn replace(&self, key: &str, with: &str) -> Result<()> {
        // Whoever is on the way to mount the old files has a record by then.
        let _alone = self.making.write().await;
        let old = self.records.replace(key, with).await?;
        self.clear_away(key, old.id).await;
        Ok(())
    }
}

/// A commit under way.
struct Committing<'a>(&'a Mutex<HashSet<u64>>, u64);

impl<'a> Committing<'a> {
    fn begin(all: &'a Mutex<HashSet<u64>>, id: u64) -> Option<Self> {
        let mut ids = all.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(id).then(|| Self(all, id))
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

fn id(record: &Record) -> u64 {
    record.id
}

/// What a directory takes.
pub(crate) async fn measure(files: PathBuf) -> Result<Usage> {
    blocking(move || usage::measure(&files).context(|| format!("measure {}", files.display())))
        .await
}

fn not_active(key: &str) -> Error {
    Error::failed_precondition(format!(
        "snapshot {key:?} is not active: only those can change and be committed"
    ))
}
