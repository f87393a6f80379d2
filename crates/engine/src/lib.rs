//! What Docker users expect above containers and tasks: names, one-call runs, exit codes that
//! stay, logs, removal at the end, images by short names.
//!
//! The engine adds to containerd's records and never replaces them: a container of the engine is
//! a container record, a snapshot under the same key and, while it runs, a task, so that any
//! client of the API sees it. What only the engine knows is one row beside the record (`rows.rs`),
//! written in the same transaction and deleted with it, whoever deletes it.
//!
//! ```text
//! run:   image ─► record and row ─► files, snapshot ─► task ─► attach ─► start ─► streams
//! exit:  TaskExit ─► row (or, with `remove`, no record any more) ─► waiters wake
//!                 ─► attached clients have read all ─► task, then snapshot and files, go
//! ```
//!
//! Whether a container runs is asked of its task; the row says how the last run ended. Who takes
//! part in a run meets the others in `live.rs`.

mod check;
mod containers;
mod files;
mod finish;
mod images;
mod info;
mod live;
mod name;
mod progress;
mod recover;
mod rows;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use berth_events::{Exchange, Subscription};
use berth_metadata::{Metadata, Scope};
use berth_pull::{Puller, Reclaim};
use berth_store::Store;
use berth_sys::rlimit;
use berth_tasks::Tasks;
use berth_types::Result;
use berth_types::spec::MOST_OPEN_FILES;
use futures_util::future::BoxFuture;
use rustix::process::Resource;
use tokio_util::task::TaskTracker;

pub use containers::{Attached, Containers, Entries, Requests, Responses};
pub use images::Images;
pub use rows::companion;

/// Makes the image of this full name in a scope, if the daemon itself carries it, and answers
/// whether it does.
pub type Carried = Arc<dyn Fn(String, Scope) -> BoxFuture<'static, Result<bool>> + Send + Sync>;

/// What the engine stands on.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The records, opened with [`companion`].
    pub metadata: Metadata,
    /// Who brings images.
    pub puller: Puller,
    /// Who gives the space of removed images back.
    pub reclaim: Reclaim,
    /// What runs.
    pub tasks: Tasks,
    /// Who tells of exits, and hears of changes.
    pub events: Exchange,
    /// Images that need no registry.
    pub carried: Carried,
    /// Where work that nobody waits for is counted, so that a stop of the daemon lets it end.
    pub background: TaskTracker,
    /// The daemon's durable directory.
    pub root: PathBuf,
    /// The daemon's directory for what a reboot ends.
    pub state: PathBuf,
    /// berth's version.
    pub version: String,
}

/// The engine. Clones are the same.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    parts: Parts,
    lives: live::Lives,
    /// Until [`Engine::run`] takes it.
    subscription: Mutex<Option<Subscription>>,
    /// Held by the one who checks the stores.
    checking: tokio::sync::Mutex<()>,
}

impl Engine {
    /// An engine that hears of events from now on. Tasks are recovered next, then
    /// [`Engine::recover`] is called, then [`Engine::run`].
    ///
    /// # Errors
    /// Those of the database.
    pub async fn open(parts: Parts) -> Result<Self> {
        rows::create(&parts.store).await?;
        raise_limits();
        let subscription = watch::subscribe(&parts.events)?;
        Ok(Self(Arc::new(Shared {
            parts,
            lives: live::Lives::default(),
            subscription: Mutex::new(Some(subscription)),
            checking: tokio::sync::Mutex::default(),
        })))
    }

    /// The containers of a namespace.
    pub fn containers(&self, scope: Scope) -> Containers {
        Containers { engine: self.clone(), scope }
    }

    /// The images of a namespace.
    pub fn images(&self, scope: Scope) -> Images {
        Images { engine: self.clone(), scope }
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    fn scope(&self, namespace: &str) -> Result<Scope> {
        self.parts().metadata.scope(namespace, None)
    }
}

/// What the daemon may not have, its containers can't be given.
fn raise_limits() {
    let most = rlimit::raise_hard(Resource::Nofile, MOST_OPEN_FILES);
    if most < MOST_OPEN_FILES {
        tracing::warn!(
            "containers may have {most} files open and not {MOST_OPEN_FILES}, because berthd may \
             not: raise its RLIMIT_NOFILE (LimitNOFILE= of its unit)"
        );
    }
}
