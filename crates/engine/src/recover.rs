//! Reconciling what was written with what runs, at the daemon's start.

use std::sync::PoisonError;
use std::time::SystemTime;

use berth_events::Subscription;
use berth_proto::containerd::events::TaskExit;
use berth_proto::containerd::v1::types::Status;
use berth_store::Durability;
use berth_tasks::Task;
use berth_types::signal::SIGKILL;
use berth_types::{Kind, Result};
use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::Engine;
use crate::files::{self, Files};
use crate::rows::{self, Row};

/// The exit code of a run whose end nobody saw: the machine stopped with it.
const UNSEEN: u32 = 255;

impl Engine {
    /// Brings rows, tasks and files into agreement. Called once, after tasks have been recovered,
    /// which announces the exits that happened meanwhile, and before clients are served.
    ///
    /// # Errors
    /// Those of the database and the disk.
    pub async fn recover(&self) -> Result<()> {
        self.note_announced().await;
        self.end_orphans().await;
        for (namespace, id, row) in self.parts().store.read(rows::all)? {
            if row.is_running() && self.parts().tasks.get(&namespace, &id).is_err() {
                self.write_off(&namespace, &id, row).await?;
            }
        }
        self.remove_orphaned_files()
    }

    /// Notes the exits that are announced so far. What they leave is cleared away in the
    /// background.
    async fn note_announced(&self) {
        let Some(mut subscription) = self.take_subscription() else { return };
        let mut exits = Vec::new();
        while let Some(Ok(envelope)) = subscription.next().now_or_never() {
            if let Some(exit) = self.hear(&envelope).await {
                exits.push((envelope.namespace.clone(), exit));
            }
        }
        self.put_subscription(subscription);
        self.note_ends(exits).await;
    }

    /// Notes the ends of tasks that nobody may have announced.
    pub(crate) async fn look_for_ends(&self) {
        let stopped = self.parts().tasks.all().into_iter().map(|task| async move {
            let state = task.state("").await.ok()?;
            let ended = state.status() == Status::Stopped;
            ended.then(|| {
                let exit = TaskExit {
                    container_id: task.id().to_owned(),
                    id: task.id().to_owned(),
                    pid: state.pid,
                    exit_status: state.exit_status,
                    exited_at: state.exited_at,
                };
                (task.namespace().to_owned(), exit)
            })
        });
        let exits = join_all(stopped).await.into_iter().flatten().collect();
        self.note_ends(exits).await;
    }

    async fn note_ends(&self, exits: Vec<(String, TaskExit)>) {
        let notes = exits
            .into_iter()
            .map(|(namespace, exit)| async move { self.note_end(&namespace, exit).await });
        for ended in join_all(notes).await.into_iter().flatten() {
            tokio::spawn(self.clone().clear_away(ended));
        }
    }

    /// Ends the tasks whose container's record did not reach the disk before a crash.
    async fn end_orphans(&self) {
        for task in self.parts().tasks.all() {
            let record =
                self.scope(task.namespace()).and_then(|scope| scope.containers().get(task.id()));
            if record.is_err_and(|error| error.kind() == Kind::NotFound) {
                let engine = self.clone();
                tokio::spawn(async move { engine.end_orphan(&task).await });
            }
        }
    }

    async fn end_orphan(&self, task: &Task) {
        let (namespace, id) = (task.namespace(), task.id());
        tracing::warn!(namespace, id, "ending a task whose container is not recorded");
        let end = async {
            match task.kill("", SIGKILL as u32, false).await {
                Err(error) if error.kind() != Kind::NotFound => return Err(error),
                _ => task.wait("").await?,
            };
            self.parts().tasks.delete(namespace, id).await
        };
        if let Err(error) = end.await {
            tracing::warn!(namespace, id, %error, "a task without a container is left behind");
        }
    }

    /// Ends, in writing, a run that is no more.
    async fn write_off(&self, namespace: &str, id: &str, row: Row) -> Result<()> {
        if row.is_temporary() {
            self.containers(self.scope(namespace)?).discard(id, Durability::Buffered).await;
            return Ok(());
        }
        let (namespace, id) = (namespace.to_owned(), id.to_owned());
        let end = |row: &mut Row| {
            row.finished_at = Some(SystemTime::now().into());
            row.exit_code = UNSEEN;
        };
        let written =
            self.parts().store.write_from_reserve(Durability::Buffered, move |transaction| {
                rows::change(transaction, &namespace, &id, end)
            });
        written.await.map(drop)
    }

    fn remove_orphaned_files(&self) -> Result<()> {
        let root = &self.parts().root;
        for (namespace, id) in files::all(root)? {
            let row = self.parts().store.read(|rows| rows::get(rows, &namespace, &id))?;
            if row.is_none() {
                Files::of(root, &namespace, &id).remove()?;
            }
        }
        Ok(())
    }

    pub(crate) fn take_subscription(&self) -> Option<Subscription> {
        self.0.subscription.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put_subscription(&self, subscription: Subscription) {
        let mut slot = self.0.subscription.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(subscription);
    }
}
