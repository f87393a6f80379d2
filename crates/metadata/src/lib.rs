//! Per-namespace records, the namespaces' views of content and snapshots, and garbage collection.
//!
//! A [`Scope`] is who asks: a namespace, perhaps with a lease. Its handles ([`Images`],
//! [`Containers`], [`Content`], [`Snapshots`], [`Leases`], [`Sandboxes`]) do what containerd's services of the
//! same names do, with the same kinds of errors, and return the records that changed, from which
//! callers publish events. Records are the messages of the wire, so that nothing is lost between
//! a client and the disk.
//!
//! Blobs and snapshots themselves belong to the crates `content` and `snapshotter`. The rules
//! that keep them together with their rows:
//!
//! - A blob is on the disk before the row that lets a namespace see it, and goes after the last
//!   such row.
//! - A lease keeps a thing before it is made.
//! - [`Metadata::collect`] removes what nothing refers to. Any number of other calls go on
//!   meanwhile; only commits of blobs wait while unused files are unlinked.

mod check;
pub mod containers;
mod content;
mod gc;
mod images;
mod labels;
mod leases;
mod namespaces;
mod records;
mod rows;
mod sandboxes;
pub mod schema;
mod scope;
mod snapshots;

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_content::ContentStore;
use berth_snapshotter::Snapshotter;
use berth_store::Store;
use berth_store::redb::WriteTransaction;
use berth_types::Result;
use tokio::sync::{Mutex, Notify, RwLock};

pub use containers::Containers;
pub use content::{Content, ContentWriter, WriterRequest};
pub use gc::{Collected, CollectedSnapshot};
pub use images::Images;
pub use leases::{Leases, Resource};
pub use namespaces::Namespaces;
pub use sandboxes::Sandboxes;
pub use scope::Scope;
pub use snapshots::Snapshots;

/// What deletes another crate's rows about a container (namespace, id) in the transaction that
/// deletes the container, whoever asks for that. It must not fail because there are none.
pub type Companion = Arc<dyn Fn(&WriteTransaction, &str, &str) -> Result<()> + Send + Sync>;

/// The records of all namespaces. Clones share them.
#[derive(Clone)]
pub struct Metadata {
    store: Store,
    content: ContentStore,
    snapshotters: Arc<BTreeMap<String, Arc<dyn Snapshotter>>>,
    default_snapshotter: Arc<str>,
    companion: Option<Companion>,
    /// Whether a namespace gets no blob by its digest that only others have sent.
    isolated: bool,
    /// Read while a blob gets its row, written while files without rows are removed.
    files: Arc<RwLock<()>>,
    condemned: Arc<snapshots::Condemned>,
    garbage: Arc<Notify>,
    collecting: Arc<Mutex<()>>,
}

impl Metadata {
    /// Records in `store` about blobs in `content` and snapshots of `snapshotters`, by their
    /// names; the first is that of who names none.
    ///
    /// # Errors
    /// Those of database and disk.
    pub async fn open(
        store: Store,
        content: ContentStore,
        snapshotters: Vec<Arc<dyn Snapshotter>>,
        companion: Option<Companion>,
    ) -> Result<Self> {
        schema::create(&store).await?;
        content::adopt(&store, &content).await?;
        let default_snapshotter = snapshotters.first().map_or("", |first| first.name()).into();
        let by_name = snapshotters.into_iter().map(|s| (s.name().to_owned(), s)).collect();
        Ok(Self {
            store,
            content,
            snapshotters: Arc::new(by_name),
            default_snapshotter,
            companion,
            isolated: false,
            files: Arc::default(),
            condemned: Arc::default(),
            garbage: Arc::default(),
            collecting: Arc::default(),
        })
    }

    /// The same records, where a namespace must send a blob itself even if another one has it,
    /// unless that one's label shares it.
    #[must_use]
    pub fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// The namespaces.
    pub fn namespaces(&self) -> Namespaces<'_> {
        Namespaces(self)
    }

    /// The names of the snapshotters.
    pub fn snapshotters(&self) -> impl Iterator<Item = &str> {
        self.snapshotters.keys().map(String::as_str)
    }

    /// Says that there may be garbage. Deletions do so themselves.
    pub fn trigger(&self) {
        self.garbage.notify_one();
    }

    /// Waits until there may be garbage that no [`collect`](Self::collect) since has looked for.
    /// For one waiter, which lets deletions add up before it collects.
    pub async fn garbage(&self) {
        self.garbage.notified().await;
    }
}
