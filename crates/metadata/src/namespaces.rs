//! Namespaces: the tenants of the API.

use berth_proto::containerd::services::namespaces::v1::Namespace;
use berth_store::redb::{ReadableTable, WriteTransaction};
use berth_store::{DbResultExt, Durability};
use berth_types::{Error, Result, id};
use prost::Message;

use crate::rows::{CONTAINERS, CONTENT, IMAGES, INGESTS, LEASES, SANDBOXES};
use crate::schema::NAMESPACES;
use crate::{Metadata, labels, leases};

/// The namespaces. One is there once it was created or something was written in it.
pub struct Namespaces<'a>(pub(crate) &'a Metadata);

impl Namespaces<'_> {
    /// Makes a namespace.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad name or label, `AlreadyExists`.
    pub async fn create(&self, mut namespace: Namespace) -> Result<Namespace> {
        id::validate("namespace", &namespace.name)?;
        labels::check(&mut namespace.labels)?;
        self.write(move |transaction| {
            if find(transaction, &namespace.name)?.is_some() {
                let name = &namespace.name;
                return Err(Error::already_exists(format!("namespace {name:?}: already exists")));
            }
            put(transaction, &namespace)?;
            Ok(namespace)
        })
        .await
    }

    /// A namespace with its labels. As in containerd, one that is not there has none.
    ///
    /// # Errors
    /// Those of the database.
    pub fn get(&self, name: &str) -> Result<Namespace> {
        let found = self.0.store.read(|transaction| {
            let table = transaction.open_table(NAMESPACES).db()?;
            let row = table.get(name).db()?;
            row.map(|row| decode(name, row.value())).transpose()
        })?;
        Ok(found.unwrap_or_else(|| unlabelled(name)))
    }

    /// All namespaces in order of their names.
    ///
    /// # Errors
    /// Those of the database.
    pub fn list(&self) -> Result<Vec<Namespace>> {
        self.0.store.read(|transaction| {
            let table = transaction.open_table(NAMESPACES).db()?;
            let rows = table.iter().db()?;
            rows.map(|row| {
                let (name, value) = row.db()?;
                decode(name.value(), value.value())
            })
            .collect()
        })
    }

    /// Changes labels by the field mask `paths` (`labels.KEY`; none replaces all).
    /// As in containerd, a namespace that is not there is made.
    ///
    /// # Errors
    /// `InvalidArgument` for any other path, a bad name or label.
    pub async fn update(&self, namespace: Namespace, paths: Vec<String>) -> Result<Namespace> {
        id::validate("namespace", &namespace.name)?;
        if let Some(path) = paths.iter().find(|path| path.as_str() == "labels") {
            return Err(labels::immutable("namespace", path));
        }
        self.write(move |transaction| {
            let name = &namespace.name;
            let mut updated = find(transaction, name)?.unwrap_or_else(|| unlabelled(name));
            labels::update("namespace", &paths, &mut updated.labels, &namespace.labels)?;
            put(transaction, &updated)?;
            Ok(updated)
        })
        .await
    }

    /// Deletes a namespace that is empty, with its leases and ingests.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it has images, blobs, containers, sandboxes or
    /// snapshots.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let mut contents = Vec::new();
        for (snapshotter, backend) in self.0.snapshotters.iter() {
            if !backend.list(&format!("{name}/")).await?.is_empty() {
                contents.push(format!("snapshots on {snapshotter:?} snapshotter"));
            }
        }
        let name = name.to_owned();
        let delete = move |transaction: &WriteTransaction| {
            if find(transaction, &name)?.is_none() {
                return Err(Error::not_found(format!("namespace {name:?}: not found")));
            }
            contents.extend(records(transaction, &name)?);
            if !contents.is_empty() {
                return Err(Error::failed_precondition(format!(
                    "namespace {name:?} must be empty, but it still has {}",
                    contents.join(", ")
                )));
            }
            remove(transaction, &name)
        };
        self.0.store.write_from_reserve(Durability::Synced, delete).await?;
        self.0.trigger();
        Ok(())
    }

    async fn write<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&WriteTransaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.0.store.write(Durability::Synced, operation).await
    }
}

/// Makes the namespace of a record that is being written.
pub(crate) fn ensure(transaction: &WriteTransaction, name: &str) -> Result<()> {
    if find(transaction, name)?.is_none() {
        put(transaction, &unlabelled(name))?;
    }
    Ok(())
}

/// The kinds of records that a namespace still has.
fn records(transaction: &WriteTransaction, name: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if !IMAGES.list(transaction, name, |_| true)?.is_empty() {
        found.push("images".to_owned());
    }
    if !CONTENT.list(transaction, name, |_| true)?.is_empty() {
        found.push("blobs".to_owned());
    }
    if !CONTAINERS.list(transaction, name, |_| true)?.is_empty() {
        found.push("containers".to_owned());
    }
    if !SANDBOXES.list(transaction, name, |_| true)?.is_empty() {
        found.push("sandboxes".to_owned());
    }
    Ok(found)
}

fn remove(transaction: &WriteTransaction, name: &str) -> Result<()> {
    for lease in LEASES.list(transaction, name, |_| true)? {
        leases::remove(transaction, name, &lease.id)?;
    }
    let mut ingests = Vec::new();
    INGESTS.each_of(transaction, name, |reference, _| {
        ingests.push(reference.to_owned());
        Ok(())
    })?;
    for reference in ingests {
        INGESTS.delete(transaction, name, &reference)?;
    }
    transaction.open_table(NAMESPACES).db()?.remove(name).db()?;
    Ok(())
}

fn find(transaction: &WriteTransaction, name: &str) -> Result<Option<Namespace>> {
    let table = transaction.open_table(NAMESPACES).db()?;
    let row = table.get(name).db()?;
    row.map(|row| decode(name, row.value())).transpose()
}

fn put(transaction: &WriteTransaction, namespace: &Namespace) -> Result<()> {
    let encoded = namespace.encode_to_vec();
    let mut table = transaction.open_table(NAMESPACES).db()?;
    table.insert(namespace.name.as_str(), encoded.as_slice()).db()?;
    Ok(())
}

fn decode(name: &str, row: &[u8]) -> Result<Namespace> {
    Namespace::decode(row).map_err(|error| {
        Error::data_loss(format!("the record of namespace {name:?} is damaged: {error}"))
    })
}

fn unlabelled(name: &str) -> Namespace {
    Namespace { name: name.to_owned(), ..Default::default() }
}
