//! Containers that clients want to be kept running, or stopped: the labels
//! `containerd.io/restart.*`, which nerdctl and containerd's client write.

mod create;
mod policy;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use berth_metadata::{Metadata, Scope};
use berth_proto::containerd::services::containers::v1::Container;
use berth_proto::containerd::v1::types::Status;
use berth_tasks::Tasks;
use berth_types::{Kind, Result};

use self::policy::{COUNT, STATUS, Wish};

/// Between two looks at all containers. It is containerd's, and also what keeps a container that
/// ends at once from being started without a pause.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long a container may take to end after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(20);

const SIGKILL: u32 = 9;

/// Starts and stops containers as their labels ask.
pub(crate) struct Monitor {
    metadata: Metadata,
    tasks: Tasks,
}

impl Monitor {
    /// A monitor of all namespaces.
    pub(crate) fn new(metadata: Metadata, tasks: Tasks) -> Self {
        Self { metadata, tasks }
    }

    /// Looks after the containers for ever.
    pub(crate) async fn run(self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "containers to be kept running can't be listed");
            }
        }
    }

    /// Looks at all containers once, side by side.
    async fn look(&self) -> Result<()> {
        let mut looked = Vec::new();
        for namespace in self.metadata.namespaces().list()? {
            let scope = self.metadata.scope(&namespace.name, None)?;
            for container in scope.containers().list(&[format!("labels.{STATUS:?}")])? {
                let scope = scope.clone();
                looked.push(async move {
                    if let Err(error) = self.reconcile(&scope, &container).await {
                        let (namespace, id) = (scope.namespace(), &container.id);
                        tracing::warn!(%namespace, %id, %error, "restart policy not followed");
                    }
                });
            }
        }
        join_all(looked).await;
        Ok(())
    }

    /// Makes one container what its labels ask for.
    async fn reconcile(&self, scope: &Scope, container: &Container) -> Result<()> {
        let wish = Wish(&container.labels);
        let state = match self.tasks.get(scope.namespace(), &container.id) {
            Ok(task) => Some(task.state("").await?),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        let stopped = state.as_ref().is_none_or(|state| state.status() == Status::Stopped);
        match state {
            Some(_) if wish.stops() && !stopped => self.end(scope, &container.id).await,
            // A container without a task, after a reboot as before its first start, has not failed.
            state if wish.runs() && stopped => {
                if !wish.again(state.as_ref().map_or(0, |state| state.exit_status)) {
                    return Ok(());
                }
                if state.is_some() {
                    self.end(scope, &container.id).await?;
                }
                self.start(scope, container).await
            }
            _ => Ok(()),
        }
    }

    /// Starts a container and counts that.
    async fn start(&self, scope: &Scope, container: &Container) -> Result<()> {
        let wish = Wish(&container.labels);
        let mut counted = container.clone();
        counted.labels.insert(COUNT.to_owned(), (wish.count() + 1).to_string());
        scope.containers().update(counted, vec![format!("labels.{COUNT}")]).await?;
        let create = create::of_container(scope, container, &wish.output()).await?;
        self.tasks.create(create).await?.start("").await?;
        let (namespace, id) = (scope.namespace(), &container.id);
        tracing::info!(%namespace, %id, "started, as its restart policy asks");
        Ok(())
    }

    /// Ends and deletes a task.
    async fn end(&self, scope: &Scope, id: &str) -> Result<()> {
        let task = self.tasks.get(scope.namespace(), id)?;
        match task.kill("", SIGKILL, true).await {
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            _ => {}
        }
        // A task that does not end is left to the next look.
        if let Ok(exit) = tokio::time::timeout(PATIENCE, task.wait("")).await {
            exit?;
            self.tasks.delete(scope.namespace(), id).await?;
        }
        Ok(())
    }
}
