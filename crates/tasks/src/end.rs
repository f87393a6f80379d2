//! The two ways in which a task ends: it is deleted, or its shim dies.
//!
//! Both hold the task's lock, so that one of them does it.

use std::sync::Arc;

use berth_proto::containerd::events::{TaskDelete, TaskExit};
use berth_proto::containerd::task::v3::{DeleteRequest, DeleteResponse, ShutdownRequest};
use berth_proto::containerd::v1::types::Status;
use berth_types::{Error, Kind, Result};
use prost::Message;

use crate::bundle::Bundle;
use crate::child::Child;
use crate::create::{FAREWELL, farewell, may_end_shim, report};
use crate::exit::Exit;
use crate::runtime::Runtime;
use crate::{Task, Tasks, bootstrap, shim};

impl Tasks {
    /// Deletes a task whose init has ended, or was never started, and ends its shim. It is done,
    /// or not, even if the returned future is dropped.
    ///
    /// # Errors
    /// `NotFound` without such a task, `FailedPrecondition` while it runs.
    pub async fn delete(&self, namespace: &str, id: &str) -> Result<DeleteResponse> {
        let task = self.get(namespace, id)?;
        let tasks = self.clone();
        crate::own_task(async move { tasks.delete_now(&task).await }).await
    }

    async fn delete_now(&self, task: &Task) -> Result<DeleteResponse> {
        let _lock = task.ending.lock().await;
        if task.gone.is_cancelled() {
            return Err(self.table.not_found(task.id()));
        }
        let request = DeleteRequest { id: task.id().to_owned(), exec_id: String::new() };
        let outcome = match task.shim.call::<_, DeleteResponse>(shim::DELETE, &request).await {
            Err(error) if error.kind() == Kind::Unavailable => {
                let exit = self.bury(task).await;
                return Ok(DeleteResponse {
                    pid: task.pid(),
                    exit_status: exit.status,
                    exited_at: exit.at,
                });
            }
            // The shim has no such container any more: an earlier call had its effect.
            Err(error) if error.kind() == Kind::NotFound => Err(error),
            Err(error) => return Err(explain(task, error).await),
            Ok(response) => Ok(response),
        };
        if may_end_shim(&task.bundle, &task.runtime) {
            let request = ShutdownRequest { id: task.id().to_owned(), now: false };
            farewell(&task.bundle, task.shim.call::<_, ()>(shim::SHUTDOWN, &request).await);
        }
        self.forget(task);
        outcome
    }

    /// Watches a task for the death of its shim, and waits for the shim's process if it is ours.
    pub(crate) fn watch(&self, task: Arc<Task>, child: Option<Child>) {
        let tasks = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = task.shim.closed() => tasks.mourn(&task).await,
                () = task.gone.cancelled() => {}
            }
            if let Some(mut child) = child {
                let ended = match task.group() {
                    // The shim stays for as long as the group has containers.
                    Some(_) => child.wait().await,
                    None => child.wait_or_kill(FAREWELL).await,
                };
                report(&task.bundle, ended.map(drop));
            }
        });
    }

    /// Cleans up after a shim that closed its connection, unless it was told to.
    async fn mourn(&self, task: &Task) {
        let _lock = task.ending.lock().await;
        if !task.gone.is_cancelled() {
            let (namespace, id) = (task.namespace(), task.id());
            tracing::warn!(%namespace, %id, "the shim died; its container is cleaned up");
            self.bury(task).await;
        }
    }

    /// Cleans up after a dead shim and announces what its events no longer can.
    async fn bury(&self, task: &Task) -> Exit {
        let found = self.clean_up(&task.bundle, &task.runtime).await;
        let exit = task.exit().unwrap_or(found);
        let pid = task.pid();
        self.announce_exit(task, exit);
        self.publish_delete(&task.bundle, pid, exit);
        self.forget(task);
        exit
    }

    /// Runs the shim's own cleanup, which also knows an exit that it recorded before it died.
    pub(crate) async fn clean_up(&self, bundle: &Bundle, runtime: &Runtime) -> Exit {
        let output = bootstrap::delete(&self.config, runtime.binary(&self.config), bundle).await;
        let response = output.and_then(|output| {
            DeleteResponse::decode(&*output)
                .map_err(|error| Error::internal(format!("answer of the shim's delete: {error}")))
        });
        match response {
            Ok(DeleteResponse { exit_status, exited_at: Some(at), .. }) => {
                Exit { status: exit_status, at: Some(at) }
            }
            Ok(_) => Exit::lost(),
            Err(error) => {
                report(bundle, Err(error));
                Exit::lost()
            }
        }
    }

    /// Publishes how a task's init ended, unless that is known.
    pub(crate) fn announce_exit(&self, task: &Task, exit: Exit) {
        if task.announce(exit) {
            self.publish_exit(&task.bundle, task.pid(), exit);
        }
    }

    /// Publishes how an init ended, unless its shim told of it before its task was known.
    pub(crate) fn publish_exit(&self, bundle: &Bundle, pid: u32, exit: Exit) {
        if self.early.note(&bundle.namespace, &bundle.id, exit) == Some(false) {
            return;
        }
        let event = TaskExit {
            container_id: bundle.id.clone(),
            id: bundle.id.clone(),
            pid,
            exit_status: exit.status,
            exited_at: exit.at,
        };
        report(bundle, self.events.publish(&bundle.namespace, "/tasks/exit", &event));
    }

    pub(crate) fn publish_delete(&self, bundle: &Bundle, pid: u32, exit: Exit) {
        let event = TaskDelete {
            container_id: bundle.id.clone(),
            // As containerd leaves it: the init.
            id: String::new(),
            pid,
            exit_status: exit.status,
            exited_at: exit.at,
        };
        report(bundle, self.events.publish(&bundle.namespace, "/tasks/delete", &event));
    }

    /// Removes what is left of an ended task. Its name is free again only when its bundle is gone.
    fn forget(&self, task: &Task) {
        report(&task.bundle, task.bundle.remove());
        self.table.remove(task.namespace(), task.id());
        task.gone.cancel();
    }
}

/// Foreign shims refuse to delete a running container without saying of what kind the refusal is.
async fn explain(task: &Task, error: Error) -> Error {
    if error.kind() != Kind::Unknown {
        return error;
    }
    match task.state("").await {
        Ok(state) if state.status() != Status::Stopped => {
            Error::failed_precondition(error.message())
        }
        _ => error,
    }
}
