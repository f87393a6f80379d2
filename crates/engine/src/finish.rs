//! The end of a run: noted, told to who waits, and cleared away.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use berth_metadata::{Scope, containers};
use berth_proto::berth::v1::Exited;
use berth_proto::containerd::events::TaskExit;
use berth_store::Durability;
use berth_types::{Error, Result};
use futures_util::future::BoxFuture;

use crate::Engine;
use crate::live::{Live, Run};
use crate::rows::{self, Row};

/// After how long an end that could not be written is written again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// How a run ended, and whom to tell. While it is kept, who asks is answered from it.
struct End {
    namespace: String,
    id: String,
    exited: Exited,
    live: Arc<Live>,
    run: Arc<Run>,
}

/// A run of one of the engine's containers whose end is noted.
pub(crate) struct Ended {
    scope: Scope,
    id: String,
    row: Row,
    live: Arc<Live>,
    run: Arc<Run>,
}

impl Engine {
    /// Notes the end of a container's init where readers see it, and tells those who wait for it.
    /// A temporary container has no record from then on. Answers what is to be cleared away.
    pub(crate) async fn note_end(&self, namespace: &str, exit: TaskExit) -> Option<Ended> {
        let live = self.0.lives.enter(namespace, &exit.container_id);
        let run = live.run();
        let at = exit.exited_at.or_else(|| Some(SystemTime::now().into()));
        let mut exited = Exited { code: exit.exit_status, at, oom_killed: false };
        let noted = self.note(namespace, &exit.container_id, exited, Durability::Buffered).await;
        if let Ok(Some((_, row))) = &noted {
            exited.oom_killed = row.oom_killed;
        }
        run.end(exited);
        match noted {
            Ok(Some((scope, row))) => Some(Ended { scope, id: exit.container_id, row, live, run }),
            Ok(None) => None,
            Err(error) => {
                let (namespace, id) = (namespace.to_owned(), exit.container_id);
                self.keep_end(End { namespace, id, exited, live, run }, &error);
                None
            }
        }
    }

    /// Writes the end of a run; `None` for a container that is not the engine's.
    pub(crate) async fn note(
        &self,
        namespace: &str,
        id: &str,
        exited: Exited,
        durability: Durability,
    ) -> Result<Option<(Scope, Row)>> {
        let scope = self.scope(namespace)?;
        let (of, id) = (scope.clone(), id.to_owned());
        let write = self.parts().store.write_from_reserve(durability, move |transaction| {
            let end = |row: &mut Row| {
                if row.is_running() {
                    (row.finished_at, row.exit_code) = (exited.at, exited.code);
                }
            };
            let Some(row) = rows::change(transaction, of.namespace(), &id, end)? else {
                return Ok(None);
            };
            if row.is_temporary() {
                containers::remove(transaction, &of, &id)?;
            }
            Ok(Some(row))
        });
        Ok(write.await?.map(|row| (scope, row)))
    }

    /// Keeps an end that could not be written, until it is. Should the daemon stop before that,
    /// the shim has it as well.
    fn keep_end(&self, end: End, error: &Error) {
        tracing::error!(id = end.id, %error, "the end of a container is not noted yet");
        tokio::spawn(self.clone().note_again(end));
    }

    fn note_again(self, end: End) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (mut pause, longest) = PAUSES;
            let noted = loop {
                tokio::time::sleep(pause).await;
                let _changing = end.live.changing.lock().await;
                if !Arc::ptr_eq(&end.run, &end.live.run()) {
                    // A start has written it.
                    return;
                }
                let (durability, exited) = (Durability::Synced, end.exited);
                match self.note(&end.namespace, &end.id, exited, durability).await {
                    Ok(noted) => break noted,
                    Err(error) => tracing::warn!(id = end.id, %error, "its end is still not noted"),
                }
                pause = longest.min(pause * 2);
            };
            if let Some((scope, row)) = noted {
                let End { id, live, run, .. } = end;
                self.clear_away(Ended { scope, id, row, live, run }).await;
            }
        })
    }

    /// Removes what is left of a run once its clients have read all: its task, and everything of a
    /// temporary container.
    pub(crate) async fn clear_away(self, ended: Ended) {
        let Ended { scope, id, row, live, run } = ended;
        run.unattended().await;
        let _counted = self.parts().background.token();
        if !row.is_temporary() {
            // The shim forgets the exit with the task.
            let synced =
                self.parts().store.write_from_reserve(Durability::Synced, |_| Ok(())).await;
            if let Err(error) = synced {
                let namespace = scope.namespace().to_owned();
                let exited = run.known().unwrap_or_default();
                return self.keep_end(End { namespace, id, exited, live, run }, &error);
            }
        }
        let _changing = live.changing.lock().await;
        if !Arc::ptr_eq(&run, &live.run()) {
            return;
        }
        let containers = self.containers(scope);
        containers.delete_task(&id).await;
        if row.is_temporary() {
            containers.clear(&id).await;
        }
    }
}
