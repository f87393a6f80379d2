//! Leases: what keeps unreferenced things from garbage collection.

use berth_proto::containerd::services::leases::v1::Lease;
use berth_store::DbResultExt;
use berth_store::redb::{ReadTransaction, WriteTransaction};
use berth_types::filter::{Fields, Filter};
use berth_types::labels::GC_EXPIRE;
use berth_types::{Digest, Error, Result};

use crate::rows::LEASES;
use crate::schema::LEASE_RESOURCES;
use crate::{Scope, labels, namespaces};

/// The leases of a namespace.
pub struct Leases<'a>(pub(crate) &'a Scope);

/// Something that a lease keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// `content`, `ingests`, `images` or `snapshots/SNAPSHOTTER`.
    pub kind: String,
    /// The digest, ref, name or key.
    pub id: String,
}

impl Resource {
    pub(crate) fn content(digest: &Digest) -> Self {
        Self { kind: "content".into(), id: digest.as_str().into() }
    }

    pub(crate) fn ingest(reference: &str) -> Self {
        Self { kind: "ingests".into(), id: reference.into() }
    }

    pub(crate) fn image(name: &str) -> Self {
        Self { kind: "images".into(), id: name.into() }
    }

    pub(crate) fn snapshot(snapshotter: &str, key: &str) -> Self {
        Self { kind: format!("snapshots/{snapshotter}"), id: key.into() }
    }

    fn check(&self) -> Result<()> {
        if self.id.is_empty() && !self.kind.is_empty() {
            return Err(Error::invalid_argument(format!("a resource {:?} has no id", self.kind)));
        }
        match self.kind.split_once('/') {
            None if self.kind == "content" => {
                self.id.parse::<Digest>()?;
                Ok(())
            }
            None if matches!(self.kind.as_str(), "ingests" | "images") => Ok(()),
            Some(("snapshots", name)) if !name.is_empty() && !name.contains('/') => Ok(()),
            _ if ["content", "ingests", "images", "snapshots"]
                .contains(&self.kind.split('/').next().unwrap_or_default()) =>
            {
                Err(Error::invalid_argument(format!("invalid resource type {:?}", self.kind)))
            }
            _ => Err(Error::unimplemented(format!("resource type {:?}", self.kind))),
        }
    }
}

impl Leases<'_> {
    /// Makes a lease.
    ///
    /// # Errors
    /// `InvalidArgument` without an id and for bad labels; `AlreadyExists`.
    pub async fn create(&self, mut lease: Lease) -> Result<Lease> {
        if lease.id.is_empty() {
            return Err(Error::invalid_argument("lease id must be provided"));
        }
        labels::check(&mut lease.labels)?;
        let ns = self.0.namespace().to_owned();
        self.0
            .write(move |transaction| {
                if LEASES.find(transaction, &ns, &lease.id)?.is_some() {
                    return Err(LEASES.exists(&lease.id));
                }
                lease.created_at = labels::now();
                namespaces::ensure(transaction, &ns)?;
                LEASES.put(transaction, &ns, &lease.id, &lease)?;
                Ok(lease)
            })
            .await
    }

    /// The leases that pass `filters`, which know `id` and `labels.*`.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed filter.
    pub fn list(&self, filters: &[String]) -> Result<Vec<Lease>> {
        let filter = Filter::parse(filters)?;
        let passes = |lease: &Lease| filter.matches(&View(lease));
        self.0.read(|transaction| LEASES.list(transaction, self.0.namespace(), passes))
    }

    /// Lets a lease expire at `at`, unless it does so before.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn expire(&self, id: &str, at: &str) -> Result<()> {
        let (ns, id, at) = (self.0.namespace().to_owned(), id.to_owned(), at.to_owned());
        let expire = move |transaction: &WriteTransaction| {
            let mut lease = LEASES.get(transaction, &ns, &id)?;
            let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
            let until = lease.labels.get(GC_EXPIRE).and_then(|until| time(until));
            if until.is_none_or(|until| time(&at).is_some_and(|at| at < until)) {
                lease.labels.insert(GC_EXPIRE.to_owned(), at);
                LEASES.put(transaction, &ns, &id, &lease)?;
            }
            Ok(())
        };
        self.0.write_from_reserve(expire).await
    }

    /// Deletes a lease. What only it kept is garbage.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let (ns, id) = (self.0.namespace().to_owned(), id.to_owned());
        self.0.write_from_reserve(move |transaction| remove(transaction, &ns, &id)).await?;
        self.0.metadata().trigger();
        Ok(())
    }

    /// Lets a lease keep `resource`, which need not be there.
    ///
    /// # Errors
    /// `NotFound` without the lease; `InvalidArgument` or `Unimplemented` for the resource.
    pub async fn add_resource(&self, lease: &str, resource: Resource) -> Result<()> {
        let (ns, lease) = (self.0.namespace().to_owned(), lease.to_owned());
        self.0
            .write(move |transaction| {
                LEASES.get(transaction, &ns, &lease)?;
                resource.check()?;
                add(transaction, &ns, &lease, &resource)
            })
            .await
    }

    /// Lets a lease no longer keep `resource`; fine when it did not.
    ///
    /// # Errors
    /// As for [`add_resource`](Self::add_resource).
    pub async fn delete_resource(&self, lease: &str, resource: Resource) -> Result<()> {
        let (ns, lease) = (self.0.namespace().to_owned(), lease.to_owned());
        self.0
            .write_from_reserve(move |transaction| {
                LEASES.get(transaction, &ns, &lease)?;
                resource.check()?;
                drop_resource(transaction, &ns, &lease, &resource)
            })
            .await?;
        self.0.metadata().trigger();
        Ok(())
    }

    /// What a lease keeps.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn resources(&self, lease: &str) -> Result<Vec<Resource>> {
        self.0.read(|transaction| {
            LEASES.get(transaction, self.0.namespace(), lease)?;
            read_resources(transaction, self.0.namespace(), lease)
        })
    }
}

/// Lets the scope's lease, if it has one, keep `resource`; says whether it has one.
///
/// # Errors
/// `NotFound` when that lease is gone.
pub(crate) fn keep(
    transaction: &WriteTransaction,
    scope: &Scope,
    resource: &Resource,
) -> Result<bool> {
    let Some(lease) = scope.lease() else { return Ok(false) };
    add(transaction, scope.namespace(), lease, resource)?;
    Ok(true)
}

/// Checks that the scope's lease, if it has one, is there, for operations that write before they
/// [`keep`].
///
/// # Errors
/// `NotFound` when it is gone.
pub(crate) fn check(transaction: &WriteTransaction, scope: &Scope) -> Result<()> {
    if let Some(lease) = scope.lease() {
        LEASES.get(transaction, scope.namespace(), lease)?;
    }
    Ok(())
}

/// Lets the scope's lease, if it has one, no longer keep `resource`.
pub(crate) fn release(
    transaction: &WriteTransaction,
    scope: &Scope,
    resource: &Resource,
) -> Result<()> {
    match scope.lease() {
        Some(lease) => drop_resource(transaction, scope.namespace(), lease, resource),
        None => Ok(()),
    }
}

/// Removes a lease and its resources.
///
/// # Errors
/// `NotFound`.
pub(crate) fn remove(transaction: &WriteTransaction, ns: &str, lease: &str) -> Result<()> {
    LEASES.delete(transaction, ns, lease)?;
    let after = format!("{lease}\0");
    let mut table = transaction.open_table(LEASE_RESOURCES).db()?;
    table.retain_in((ns, lease, "", "")..(ns, after.as_str(), "", ""), |_, ()| false).db()
}

fn add(
    transaction: &WriteTransaction,
    ns: &str,
    lease: &str,
    Resource { kind, id }: &Resource,
) -> Result<()> {
    LEASES.get(transaction, ns, lease)?;
    let mut table = transaction.open_table(LEASE_RESOURCES).db()?;
    table.insert((ns, lease, kind.as_str(), id.as_str()), ()).db()?;
    Ok(())
}

fn drop_resource(
    transaction: &WriteTransaction,
    ns: &str,
    lease: &str,
    Resource { kind, id }: &Resource,
) -> Result<()> {
    let mut table = transaction.open_table(LEASE_RESOURCES).db()?;
    table.remove((ns, lease, kind.as_str(), id.as_str())).db()?;
    Ok(())
}

fn read_resources(transaction: &ReadTransaction, ns: &str, lease: &str) -> Result<Vec<Resource>> {
    let after = format!("{lease}\0");
    let table = transaction.open_table(LEASE_RESOURCES).db()?;
    let rows = table.range((ns, lease, "", "")..(ns, after.as_str(), "", "")).db()?;
    rows.map(|row| {
        let (key, _) = row.db()?;
        let (_, _, kind, id) = key.value();
        Ok(Resource { kind: kind.to_owned(), id: id.to_owned() })
    })
    .collect()
}

/// A lease as filters see it.
struct View<'a>(&'a Lease);

impl Fields for View<'_> {
    fn field(&self, path: &[String]) -> Option<&str> {
        match path.first()?.as_str() {
            "id" => labels::present(&self.0.id),
            "labels" => labels::field(&path[1..], &self.0.labels),
            _ => None,
        }
    }
}
