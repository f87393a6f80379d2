//! Remove: deletes a container with all that belongs to it.

use berth_metadata::containers;
use berth_proto::berth::v1::{Exited, RemoveRequest, RemoveResponse, State};
use berth_proto::containerd::events::ContainerDelete;
use berth_store::Durability;
use berth_types::signal::SIGKILL;
use berth_types::{Error, Kind, Result};

use super::Containers;
use super::find::Found;
use super::kill::death;
use crate::files::Files;
use crate::live::Live;

impl Containers {
    /// Removes a container, its snapshot and its logs; with `force` also one that runs.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition`, in Docker's words, when it runs; `DeadlineExceeded` when
    /// a killed process does not end.
    pub async fn remove(&self, request: RemoveRequest) -> Result<RemoveResponse> {
        let found = self.find(&request.container)?;
        let live = self.engine.0.lives.enter(self.namespace(), &found.id);
        let _changing = live.changing.lock().await;
        self.end_task(&found, &live, request.force).await?;
        let record = self.record(&found.id)?;
        self.delete_record(&found.id, Durability::Synced).await?;
        if !record.snapshot_key.is_empty() && found.row.is_none() {
            self.remove_snapshot(&record.snapshotter, &record.snapshot_key).await;
        }
        self.clear(&found.id).await;
        Ok(RemoveResponse { id: found.id })
    }

    /// Ends a container's task, if it has one.
    async fn end_task(&self, found: &Found, live: &Live, force: bool) -> Result<()> {
        let Ok(task) = self.engine.parts().tasks.get(self.namespace(), &found.id) else {
            return Ok(());
        };
        let state = self.condition(&found.id, found.row.as_ref()).await.state;
        if matches!(state, State::Running | State::Paused | State::Unknown) {
            if !force {
                return Err(is_running(found, state));
            }
            match task.kill("", SIGKILL as u32, false).await {
                Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => {
                    return Err(error);
                }
                _ => death(&task).await?,
            }
        }
        let run = live.run();
        run.hurry();
        let tasks = &self.engine.parts().tasks;
        match tasks.delete(self.namespace(), &found.id).await {
            Ok(ended) => {
                // Its row goes before its exit is noted there: who waits is told here.
                let (code, at) = (ended.exit_status, ended.exited_at);
                run.end(Exited { code, at, oom_killed: false });
                Ok(())
            }
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes back a container that came to nothing.
    pub(crate) async fn discard(&self, id: &str, durability: Durability) {
        match self.delete_record(id, durability).await {
            Err(error) if error.kind() != Kind::NotFound => {
                tracing::warn!(id, %error, "a container that came to nothing is left behind");
            }
            _ => self.clear(id).await,
        }
    }

    /// Deletes record and row.
    async fn delete_record(&self, id: &str, durability: Durability) -> Result<()> {
        let (scope, key) = (self.scope.clone(), id.to_owned());
        let store = &self.engine.parts().store;
        store
            .write_from_reserve(durability, move |transaction| {
                containers::remove(transaction, &scope, &key)
            })
            .await
    }

    /// Removes what a container without a record leaves, and tells subscribers that it is gone.
    /// What stays in spite of it is garbage.
    pub(crate) async fn clear(&self, id: &str) {
        // The record, which named the snapshotter, is gone.
        for snapshotter in self.scope.metadata().snapshotters() {
            self.remove_snapshot(snapshotter, id).await;
        }
        if let Err(error) = Files::of(&self.engine.parts().root, self.namespace(), id).remove() {
            tracing::warn!(id, %error, "files of a removed container are left behind");
        }
        let event = ContainerDelete { id: id.to_owned() };
        self.engine.publish(self.namespace(), "/containers/delete", &event);
        // Its image may have been removed before it.
        self.scope.metadata().trigger();
    }

    async fn remove_snapshot(&self, snapshotter: &str, key: &str) {
        let removed = match self.scope.snapshots(snapshotter) {
            Ok(snapshots) => snapshots.remove(key).await,
            Err(error) => Err(error),
        };
        match removed {
            // Of a snapshotter that is not there, nothing is known.
            Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => {
                tracing::warn!(key, %error, "the snapshot of a removed container is left behind");
            }
            _ => {}
        }
    }
}

fn is_running(found: &Found, state: State) -> Error {
    let (shown, id) = (found.shown(), &found.id);
    let is = if state == State::Paused { "paused" } else { "running" };
    Error::failed_precondition(format!(
        "cannot remove container \"{shown}\": container {id} is {is}: stop the container before \
         removing or force remove"
    ))
}
