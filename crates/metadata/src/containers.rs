//! Containers: records of what to run. Tasks are not here.

use berth_proto::containerd::services::containers::v1::Container;
use berth_proto::containerd::services::containers::v1::container::Runtime;
use berth_store::redb::WriteTransaction;
use berth_types::filter::{Fields, Filter};
use berth_types::{Error, Result, id};

use crate::rows::CONTAINERS;
use crate::{Scope, labels, namespaces};

/// The containers of a namespace.
pub struct Containers<'a>(pub(crate) &'a Scope);

impl Containers<'_> {
    /// The container called `id`.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, id: &str) -> Result<Container> {
        self.0.read(|transaction| CONTAINERS.get(transaction, self.0.namespace(), id))
    }

    /// The containers that pass `filters`, which know `id`, `runtime.name`, `image` and
    /// `labels.*`.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed filter.
    pub fn list(&self, filters: &[String]) -> Result<Vec<Container>> {
        let filter = Filter::parse(filters)?;
        let passes = |container: &Container| filter.matches(&View(container));
        self.0.read(|transaction| CONTAINERS.list(transaction, self.0.namespace(), passes))
    }

    /// The ids that begin with `prefix`, in order.
    ///
    /// # Errors
    /// Those of the database.
    pub fn ids(&self, prefix: &str) -> Result<Vec<String>> {
        self.0.read(|transaction| CONTAINERS.ids(transaction, self.0.namespace(), prefix))
    }

    /// Makes a container; see [`insert`].
    ///
    /// # Errors
    /// As for [`insert`].
    pub async fn create(&self, container: Container) -> Result<Container> {
        let ns = self.0.namespace().to_owned();
        self.0.write(move |transaction| insert(transaction, &ns, container)).await
    }

    /// Changes a container by the field mask `paths`: `labels`, `labels.KEY`, `spec`,
    /// `extensions`, `extensions.KEY`, `image`, `snapshotkey`; none replaces all of these.
    /// Nothing is changed on an error.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for any other path, without paths also when snapshotter or
    /// runtime differ, and as for [`insert`].
    pub async fn update(&self, container: Container, paths: Vec<String>) -> Result<Container> {
        if container.id.is_empty() {
            return Err(Error::invalid_argument("must specify a container id"));
        }
        let ns = self.0.namespace().to_owned();
        self.0
            .write(move |transaction| {
                let mut updated = CONTAINERS.get(transaction, &ns, &container.id)?;
                apply(&mut updated, container, paths)?;
                check(&mut updated)?;
                updated.updated_at = labels::now();
                CONTAINERS.put(transaction, &ns, &updated.id, &updated)?;
                Ok(updated)
            })
            .await
    }

    /// Deletes the container called `id` and the rows that others keep beside it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let (scope, id) = (self.0.clone(), id.to_owned());
        self.0.write_from_reserve(move |transaction| remove(transaction, &scope, &id)).await?;
        self.0.metadata().trigger();
        Ok(())
    }
}

/// Writes a new container within a caller's transaction; its times are set here.
///
/// # Errors
/// `InvalidArgument` when id, labels, runtime, spec or snapshotter are not acceptable;
/// `AlreadyExists`.
pub fn insert(transaction: &WriteTransaction, ns: &str, mut new: Container) -> Result<Container> {
    check(&mut new)?;
    if CONTAINERS.find(transaction, ns, &new.id)?.is_some() {
        return Err(CONTAINERS.exists(&new.id));
    }
    new.created_at = labels::now();
    new.updated_at = new.created_at;
    namespaces::ensure(transaction, ns)?;
    CONTAINERS.put(transaction, ns, &new.id, &new)?;
    Ok(new)
}

/// Deletes a container within a caller's transaction, with the rows that others keep beside it.
/// Call [`Metadata::trigger`](crate::Metadata::trigger) after the commit.
///
/// # Errors
/// `NotFound`.
pub fn remove(transaction: &WriteTransaction, scope: &Scope, id: &str) -> Result<()> {
    CONTAINERS.delete(transaction, scope.namespace(), id)?;
    match &scope.metadata().companion {
        Some(companion) => companion(transaction, scope.namespace(), id),
        None => Ok(()),
    }
}

fn apply(to: &mut Container, from: Container, mut paths: Vec<String>) -> Result<()> {
    if paths.is_empty() {
        unchanged("snapshotter", &to.snapshotter, &from.snapshotter)?;
        unchanged("runtime name", runtime_name(to), runtime_name(&from))?;
        paths = ["labels", "spec", "extensions", "image", "snapshotkey"].map(String::from).into();
    }
    for path in paths {
        match path.as_str() {
            "spec" => to.spec.clone_from(&from.spec),
            "image" => to.image.clone_from(&from.image),
            "snapshotkey" => to.snapshot_key.clone_from(&from.snapshot_key),
            "extensions." => {
                return Err(Error::invalid_argument("extension keys must not be empty"));
            }
            path => {
                let known = labels::apply(path, "labels", &mut to.labels, &from.labels)
                    || labels::apply(path, "extensions", &mut to.extensions, &from.extensions);
                if !known {
                    return Err(labels::immutable(&format!("container {:?}", to.id), path));
                }
            }
        }
    }
    Ok(())
}

fn unchanged(what: &str, old: &str, new: &str) -> Result<()> {
    if old == new {
        return Ok(());
    }
    Err(Error::invalid_argument(format!("container {what} is immutable: it is {old:?}")))
}

fn check(container: &mut Container) -> Result<()> {
    id::validate("container id", &container.id)?;
    labels::check(&mut container.labels)?;
    let invalid =
        |what: &str| Err(Error::invalid_argument(format!("container {:?}: {what}", container.id)));
    if container.extensions.contains_key("") {
        return invalid("extension keys must not be empty");
    }
    if runtime_name(container).is_empty() {
        return invalid("runtime name must be set");
    }
    if container.spec.is_none() {
        return invalid("spec must be set");
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        return invalid("snapshotter must be set if snapshot key is set");
    }
    Ok(())
}

fn runtime_name(container: &Container) -> &str {
    container.runtime.as_ref().map_or("", |Runtime { name, .. }| name)
}

/// A container as filters see it.
struct View<'a>(&'a Container);

impl Fields for View<'_> {
    fn field(&self, path: &[String]) -> Option<&str> {
        match path.first()?.as_str() {
            "id" => labels::present(&self.0.id),
            "runtime" if path.get(1)? == "name" => labels::present(runtime_name(self.0)),
            "image" => labels::present(&self.0.image),
            "labels" => labels::field(&path[1..], &self.0.labels),
            _ => None,
        }
    }
}
