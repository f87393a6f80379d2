//! Start: runs a container that is created or has ended.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use berth_proto::berth::v1::{StartRequest, StartResponse, State};
use berth_store::Durability;
use berth_types::spec::Spec;
use berth_types::{Error, Result};

use super::find::Found;
use super::launch::{self, Launch};
use super::{Attached, Containers, state};
use crate::live::Live;
use crate::rows::{self, Row};

/// How long a start waits for the end of the last run to be noted.
const SETTLE: Duration = Duration::from_secs(10);

/// What the engine keeps of a container, without which it can't start or rename it.
///
/// # Errors
/// `FailedPrecondition` for another client's container.
pub(super) fn own_row(found: &Found) -> Result<&Row> {
    found.row.as_ref().ok_or_else(|| {
        Error::failed_precondition(format!(
            "container {} was made by another client of the API: do that with the same client",
            found.id
        ))
    })
}

impl Containers {
    /// Starts a container; a running one goes on.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` for another client's container; those of the shim.
    pub async fn start(&self, request: StartRequest) -> Result<StartResponse> {
        let found = self.find(&request.container)?;
        let live = self.engine.0.lives.enter(self.namespace(), &found.id);
        let _changing = live.changing.lock().await;
        if !self.has_task(&found, &live).await? {
            self.start_again(&live, &found, false).await?;
        }
        Ok(StartResponse { id: found.id })
    }

    /// Whether a task of the container runs. What is left of an ended one is removed, once its end
    /// is noted: it must not be taken for the end of a next run. The caller holds the container's
    /// `changing`.
    pub(super) async fn has_task(&self, found: &Found, live: &Live) -> Result<bool> {
        let is_there = || self.engine.parts().tasks.get(self.namespace(), &found.id).is_ok();
        if is_there() {
            match self.condition(&found.id, found.row.as_ref()).await.state {
                State::Exited => {}
                // Its shim may just have died.
                _ if !is_there() => {}
                State::Unknown => return Err(state::unknown(&found.id)),
                _ => return Ok(true),
            }
        }
        let run = live.run();
        if self.is_noted_as_running(&found.id)? {
            let Ok(exited) = tokio::time::timeout(SETTLE, run.ended()).await else {
                return Err(Error::unavailable(format!(
                    "container {} has just ended and its end is not noted yet: try again",
                    found.shown()
                )));
            };
            // It may have been impossible to write.
            if self.is_noted_as_running(&found.id)? {
                let (namespace, durability) = (self.namespace(), Durability::Buffered);
                self.engine.note(namespace, &found.id, exited, durability).await?;
            }
        }
        run.hurry();
        self.delete_task(&found.id).await;
        Ok(false)
    }

    fn is_noted_as_running(&self, id: &str) -> Result<bool> {
        Ok(self.row(id)?.is_some_and(|row| row.is_running()))
    }

    /// Starts a container without a task. The caller holds the container's `changing`.
    pub(super) async fn start_again(
        &self,
        live: &Arc<Live>,
        found: &Found,
        attach: bool,
    ) -> Result<Attached> {
        let before = own_row(found)?.clone();
        let record = self.record(&found.id)?;
        let snapshots = self.scope.snapshots(&record.snapshotter)?;
        let mounts = snapshots.mounts(&record.snapshot_key).await?;
        let spec = record.spec.as_ref().map(|spec| spec.value.as_slice()).unwrap_or_default();
        let spec: Spec = serde_json::from_slice(spec).unwrap_or_default();
        let files = self.make_files(&found.id, &spec, &before)?;
        let launch = Launch::new(record, &before, launch::mounts(mounts), files.log());
        live.begin();
        self.note_start(&found.id, &before).await?;
        self.launch(live, launch, before, attach).await
    }

    async fn note_start(&self, id: &str, before: &Row) -> Result<()> {
        let (namespace, id) = (self.namespace().to_owned(), id.to_owned());
        let start = |row: &mut Row| {
            row.started_at = Some(SystemTime::now().into());
            (row.finished_at, row.exit_code, row.oom_killed) = (None, 0, false);
        };
        let store = &self.engine.parts().store;
        let note = store.write(before.durability(), move |transaction| {
            rows::change(transaction, &namespace, &id, start)
        });
        note.await.map(drop)
    }

    /// Undoes what was noted of a start that failed.
    pub(super) async fn take_back(&self, id: &str, before: Row) {
        if before.is_temporary() {
            return self.discard(id, before.durability()).await;
        }
        let (namespace, key) = (self.namespace().to_owned(), id.to_owned());
        let durability = before.durability();
        let undo = move |row: &mut Row| {
            // A new container's row was written with its start.
            let ran = before.finished_at.is_some();
            row.started_at = before.started_at.filter(|_| ran);
            row.finished_at = before.finished_at;
            (row.exit_code, row.oom_killed) = (before.exit_code, before.oom_killed);
        };
        let store = &self.engine.parts().store;
        let undone = store.write_from_reserve(durability, move |transaction| {
            rows::change(transaction, &namespace, &key, undo)
        });
        if let Err(error) = undone.await {
            tracing::warn!(id, %error, "a failed start is still noted as a run");
        }
    }
}
