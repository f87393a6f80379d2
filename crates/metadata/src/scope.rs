//! Who asks: a namespace, perhaps with a lease.

use berth_store::Durability;
use berth_store::redb::{ReadTransaction, WriteTransaction};
use berth_types::labels::DEFAULT_SNAPSHOTTER;
use berth_types::{Error, Result, id};

use crate::{Containers, Content, Images, Leases, Metadata, Sandboxes, Snapshots};

/// A namespace as one caller sees it. Clones are cheap.
#[derive(Clone)]
pub struct Scope {
    metadata: Metadata,
    namespace: String,
    lease: Option<String>,
    durability: Durability,
}

impl Metadata {
    /// The view of `namespace`, which need not be there. What is written through it is kept by
    /// `lease`, if one is given.
    ///
    /// # Errors
    /// `InvalidArgument` when the namespace's name is not acceptable.
    pub fn scope(&self, namespace: &str, lease: Option<&str>) -> Result<Scope> {
        id::validate("namespace", namespace)?;
        Ok(Scope {
            metadata: self.clone(),
            namespace: namespace.to_owned(),
            lease: lease.map(str::to_owned),
            durability: Durability::Synced,
        })
    }
}

impl Scope {
    /// The same view, whose writes are answered with `durability` instead of when they are on
    /// the disk.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The lease.
    pub fn lease(&self) -> Option<&str> {
        self.lease.as_deref()
    }

    /// Where this looks.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Its images.
    pub fn images(&self) -> Images<'_> {
        Images(self)
    }

    /// Its containers.
    pub fn containers(&self) -> Containers<'_> {
        Containers(self)
    }

    /// The blobs that it may see.
    pub fn content(&self) -> Content<'_> {
        Content(self)
    }

    /// Its leases.
    pub fn leases(&self) -> Leases<'_> {
        Leases(self)
    }

    /// Its sandboxes.
    pub fn sandboxes(&self) -> Sandboxes<'_> {
        Sandboxes(self)
    }

    /// The snapshotter of who names none: as a label of the namespace says, else the daemon's.
    ///
    /// # Errors
    /// Those of the database.
    pub fn snapshotter(&self) -> Result<String> {
        let labels = self.metadata.namespaces().get(&self.namespace)?.labels;
        let chosen = labels.get(DEFAULT_SNAPSHOTTER).filter(|name| !name.is_empty());
        Ok(chosen.cloned().unwrap_or_else(|| self.metadata.default_snapshotter.to_string()))
    }

    /// Its snapshots of one snapshotter.
    ///
    /// # Errors
    /// `InvalidArgument` when there is no such snapshotter.
    pub fn snapshots(&self, snapshotter: &str) -> Result<Snapshots<'_>> {
        let backend = self.metadata.snapshotters.get(snapshotter).cloned().ok_or_else(|| {
            let known: Vec<_> = self.metadata.snapshotters().collect();
            Error::invalid_argument(format!(
                "snapshotter {snapshotter:?} is not loaded: there is {}",
                known.join(", ")
            ))
        })?;
        Ok(Snapshots { scope: self, backend })
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        self.metadata.store.read(read)
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&WriteTransaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.metadata.store.write(self.durability, operation).await
    }

    /// For what must work on a full disk.
    pub(crate) async fn write_from_reserve<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&WriteTransaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.metadata.store.write_from_reserve(self.durability, operation).await
    }
}
