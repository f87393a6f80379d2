//! Tasks and the shims that run them.
//!
//! A *task* is the running thing of a container. Its processes belong to a *shim*, a process that
//! outlives this daemon and is spoken to over ttrpc (containerd's shim API, versions 2 and 3).
//! [`Tasks`] makes tasks and ends them, [`Task`] passes on what is asked of one. What is done to a
//! running task goes by what its shim says; only lists are made of what is known without asking.
//!
//! - Our own shim is started with one exec (`create.rs`), any other by containerd's `start`
//!   protocol (`bootstrap.rs`).
//! - Making and deleting run to their end, whoever still waits for them.
//! - Every call but Wait has a deadline. A hung shim holds up nobody but its own container.
//! - A shim that dies is noticed by its connection; its container is then cleaned up and its exit
//!   published (`end.rs`).
//! - A *sandbox* is a shim that was started before the containers that it is for (`sandbox/`).
//! - [`Tasks::recover`] takes over what an earlier daemon left running.

mod attach;
mod bootstrap;
mod bundle;
mod child;
mod config;
mod create;
mod early;
mod end;
mod exit;
mod forward;
mod info;
mod log;
mod own_shim;
mod recover;
mod runtime;
mod sandbox;
mod shim;
mod stray;
mod table;
mod task;

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::sync::Arc;

use berth_events::Exchange;
use berth_types::{Error, Result, ResultExt};

use crate::bundle::Owner;
use crate::early::Early;
use crate::own_shim::OwnShim;
use crate::table::Table;
pub use attach::Attachment;
pub use config::{Config, find_own_shim};
pub use create::Create;
pub use exit::Exit;
pub use runtime::DEFAULT_RUNTIME;
pub use sandbox::{CreateSandbox, Sandbox};
pub use task::Task;

/// The tasks of one daemon. Clones are the same.
#[derive(Clone)]
pub struct Tasks {
    config: Arc<Config>,
    own_shim: Arc<OwnShim>,
    events: Exchange,
    table: Arc<Table<Task>>,
    sandboxes: Arc<Table<Sandbox>>,
    early: Arc<Early>,
}

impl Tasks {
    /// No tasks yet: see [`Tasks::recover`]. Events go to `events`.
    ///
    /// # Errors
    /// When the directories can't be made.
    pub fn new(config: Config, events: Exchange) -> Result<Self> {
        // Whoever may enter the sockets' directory may command shims.
        let directories = [
            (config.bundles(Owner::Task), 0o711),
            (config.bundles(Owner::Sandbox), 0o700),
            (config.sockets(), 0o700),
        ];
        for (directory, mode) in directories {
            let what = || format!("create directory {}", directory.display());
            DirBuilder::new().recursive(true).mode(mode).create(&directory).context(what)?;
            fs::set_permissions(&directory, Permissions::from_mode(mode)).context(what)?;
        }
        let own_shim = Arc::new(OwnShim::open(&config.shim));
        Ok(Self {
            config: Arc::new(config),
            own_shim,
            events,
            table: Arc::new(Table::new("task")),
            sandboxes: Arc::new(Table::new("sandbox")),
            early: Arc::default(),
        })
    }

    /// The task of a container.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, namespace: &str, id: &str) -> Result<Arc<Task>> {
        self.table.get(namespace, id)
    }

    /// The tasks of a namespace, in order of their ids.
    pub fn list(&self, namespace: &str) -> Vec<Arc<Task>> {
        self.table.list(namespace)
    }

    /// The tasks of all namespaces.
    pub fn all(&self) -> Vec<Arc<Task>> {
        self.table.all()
    }
}

/// Runs an operation in a task of its own: it goes on when its caller doesn't wait any more.
async fn own_task<T: Send + 'static>(
    operation: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(operation)
        .await
        .unwrap_or_else(|error| Err(Error::internal(format!("the operation died: {error}"))))
}
