//! The lease that keeps what an operation fetches until a record does.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_metadata::{Metadata, Resource, Scope};
use berth_proto::containerd::services::leases::v1::Lease;
use berth_store::Durability;
use berth_types::labels::GC_EXPIRE;
use berth_types::{Digest, Error, Kind, Result};

use crate::chain::UNFINISHED;
use crate::puller::Reclaim;

/// Names what an operation is about on its lease, to find what earlier tries left.
const PURPOSE: &str = "berth.io/pull";
/// How long an operation may take.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How long what an interrupted operation fetched is kept, to be gone on with.
const RESUMABLE: Duration = Duration::from_secs(60 * 60);

/// The leases of operations.
pub(crate) struct Leases {
    /// Those of operations that go on in this process; others with a purpose are leftovers.
    live: Mutex<HashSet<String>>,
    reclaim: Reclaim,
}

impl Leases {
    pub(crate) fn new(reclaim: Reclaim) -> Self {
        Self { live: Mutex::default(), reclaim }
    }

    /// Removes the unfinished snapshots of operations that ended with an earlier process. What
    /// those fetched is kept for a while to be resumed.
    pub(crate) async fn recover(&self, metadata: &Metadata) -> Result<()> {
        for namespace in metadata.namespaces().list()? {
            let scope = metadata.scope(&namespace.name, None)?;
            for lease in scope.leases().list(&[format!("labels.{PURPOSE:?}")])? {
                if !self.is_live(&lease.id) {
                    remove_unfinished(&scope, &lease.id).await?;
                    leave(&scope, &lease.id).await;
                }
            }
        }
        Ok(())
    }

    /// Does `work` with a lease. When it succeeds, leftovers of earlier tries go as well. When it
    /// fails, the lease stays for a while if the failure may pass, so that the next try finds what
    /// there is; else what was fetched is gone before this returns.
    pub(crate) async fn with<T>(
        &self,
        metadata: &Metadata,
        namespace: &str,
        purpose: &str,
        work: impl AsyncFnOnce(Scope) -> Result<T>,
    ) -> Result<T> {
        let purpose = Digest::of(purpose.as_bytes()).to_string();
        let random = getrandom::u64()
            .map_err(|e| Error::internal(format!("no random numbers for a lease: {e}")))?;
        let id = format!("pull-{random:016x}");
        // What is lost with the machine's power was not acknowledged: the image record is written
        // last, and synced.
        let plain = metadata.scope(namespace, None)?.with_durability(Durability::Buffered);
        let live = self.enter(&id);
        plain.leases().create(lease(&id, &purpose)).await?;
        let leased = metadata.scope(namespace, Some(&id))?.with_durability(Durability::Buffered);
        let result = work(leased).await;
        drop(live);
        match &result {
            Ok(_) => self.remove_all(&plain, &purpose).await,
            Err(error) if may_pass(error) => leave(&plain, &id).await,
            Err(_) => {
                remove(&plain, &id).await;
                (self.reclaim)().await;
            }
        }
        result
    }

    /// Collects garbage.
    pub(crate) async fn reclaim(&self) {
        (self.reclaim)().await;
    }

    fn enter(&self, id: &str) -> Live<'_> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
        Live { leases: self, id: id.to_owned() }
    }

    fn is_live(&self, id: &str) -> bool {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    async fn remove_all(&self, scope: &Scope, purpose: &str) {
        let filter = format!("labels.{PURPOSE:?}=={purpose}");
        let found = match scope.leases().list(&[filter]) {
            Ok(found) => found,
            Err(error) => return tracing::warn!(%error, "leases can't be listed"),
        };
        for lease in found {
            if !self.is_live(&lease.id) {
                remove(scope, &lease.id).await;
            }
        }
    }
}

/// An operation going on.
struct Live<'a> {
    leases: &'a Leases,
    id: String,
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.leases.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

fn lease(id: &str, purpose: &str) -> Lease {
    let labels = HashMap::from([
        (GC_EXPIRE.to_owned(), after(LIFETIME)),
        (PURPOSE.to_owned(), purpose.to_owned()),
    ]);
    Lease { id: id.to_owned(), labels, ..Default::default() }
}

/// The time `from_now`, as labels have it.
fn after(from_now: Duration) -> String {
    let from_now = jiff::SignedDuration::try_from(from_now).unwrap_or_default();
    let at = jiff::Timestamp::now().saturating_add(from_now);
    at.map(|at| at.to_string()).unwrap_or_default()
}

/// Lets the lease of an operation that has ended without success expire soon. One that expires
/// even sooner stays as it is.
async fn leave(scope: &Scope, id: &str) {
    match scope.leases().expire(id, &after(RESUMABLE)).await {
        Err(error) if error.kind() != Kind::NotFound => {
            tracing::warn!(%error, lease = id, "a lease expires only later");
        }
        _ => {}
    }
}

async fn remove_unfinished(scope: &Scope, lease: &str) -> Result<()> {
    for Resource { kind, id } in scope.leases().resources(lease)? {
        let Some(snapshotter) = kind.strip_prefix("snapshots/") else { continue };
        let Ok(snapshots) = scope.snapshots(snapshotter) else { continue };
        if !id.starts_with(UNFINISHED) {
            continue;
        }
        match snapshots.remove(&id).await {
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a failure may pass by itself.
pub(crate) fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::Cancelled | Kind::DeadlineExceeded)
}

/// A lease that can't be removed ends by itself.
async fn remove(scope: &Scope, id: &str) {
    match scope.leases().delete(id).await {
        Err(error) if error.kind() != Kind::NotFound => {
            tracing::warn!(%error, lease = id, "a lease can't be deleted, it will expire");
        }
        _ => {}
    }
}
