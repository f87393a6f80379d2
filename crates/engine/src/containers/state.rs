//! How a container is at the moment: by its task while it has one, else by its row.

use berth_proto::berth::v1::{Container, Exited, State};
use berth_proto::containerd::v1::types::Status;
use berth_tasks::Exit;
use berth_types::{Error, Kind, Result};

use super::Containers;
use crate::rows::Row;

/// How a container is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    pub(super) state: State,
    /// Of its init, in the host's pidns; 0 when it does not run.
    pub(super) pid: u32,
    /// How its last run ended.
    pub(super) exited: Option<Exited>,
}

impl Condition {
    fn of(state: State) -> Self {
        Self { state, pid: 0, exited: None }
    }

    fn of_row(row: Option<&Row>) -> Self {
        match row {
            Some(row) if row.started_at.is_some() => {
                Self { exited: Some(exited(row)), ..Self::of(State::Exited) }
            }
            _ => Self::of(State::Created),
        }
    }

    fn of_task(pid: u32, status: Status, exit: Exit) -> Self {
        let running = |state_now| Self { pid, ..Self::of(state_now) };
        match status {
            Status::Created => running(State::Created),
            Status::Running => running(State::Running),
            Status::Paused | Status::Pausing => running(State::Paused),
            Status::Stopped => {
                let exited = Exited { code: exit.status, at: exit.at, oom_killed: false };
                Self { exited: Some(exited), ..Self::of(State::Exited) }
            }
            Status::Unknown => Self::of(State::Unknown),
        }
    }
}

/// The failure of what must know how a container is, and doesn't.
pub(super) fn unknown(id: &str) -> Error {
    Error::deadline_exceeded(format!(
        "the shim of container {id} gives no answer, so that its state is not known: try again"
    ))
}

/// How the last run ended, as the row says.
pub(crate) fn exited(row: &Row) -> Exited {
    Exited { code: row.exit_code, at: row.finished_at, oom_killed: row.oom_killed }
}

impl Containers {
    /// How a container is. A shim that gives no answer leaves it unknown, as one does that has
    /// just died.
    pub(super) async fn condition(&self, id: &str, row: Option<&Row>) -> Condition {
        let Ok(task) = self.engine.parts().tasks.get(self.namespace(), id) else {
            return self.without_task(id, row);
        };
        match task.state("").await {
            Ok(state) => {
                let exit = Exit { status: state.exit_status, at: state.exited_at };
                Condition::of_task(state.pid, state.status(), exit)
            }
            // It ended while it was asked.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => {
                self.without_task(id, row)
            }
            Err(error) => {
                tracing::warn!(id, %error, "the state of a container is not known");
                Condition::of(State::Unknown)
            }
        }
    }

    /// How a container is, as far as that is known without asking its shim.
    pub(super) fn known_condition(&self, id: &str, row: Option<&Row>) -> Condition {
        let Ok(task) = self.engine.parts().tasks.get(self.namespace(), id) else {
            return self.without_task(id, row);
        };
        let (status, exit) = task.known();
        Condition::of_task(task.pid(), status, exit.unwrap_or_default())
    }

    /// How a container without a task is. In a run that goes on by its row, somebody just makes
    /// the task, or how it ended is just about to be noted.
    fn without_task(&self, id: &str, row: Option<&Row>) -> Condition {
        if !row.is_some_and(Row::is_running) {
            return Condition::of_row(row);
        }
        // That was read before the task was looked for.
        match self.row(id) {
            Ok(Some(row)) if row.is_running() => {
                let live = self.engine.0.lives.enter(self.namespace(), id);
                if let Some(exited) = live.run().known() {
                    return Condition { exited: Some(exited), ..Condition::of(State::Exited) };
                }
                let is_made = live.changing.try_lock().is_err();
                Condition::of(if is_made { State::Created } else { State::Unknown })
            }
            Ok(row) => Condition::of_row(row.as_ref()),
            Err(error) => {
                tracing::warn!(id, %error, "the state of a container can't be read");
                Condition::of(State::Unknown)
            }
        }
    }

    /// A container in `condition` as lists show it. For another client's container that is what its record says.
    pub(super) fn describe(
        &self,
        id: &str,
        row: Option<&Row>,
        condition: Condition,
    ) -> Result<Container> {
        let exited = condition.exited.unwrap_or_default();
        let container = Container {
            id: id.to_owned(),
            state: condition.state.into(),
            pid: condition.pid,
            exit_code: exited.code,
            finished_at: exited.at,
            oom_killed: exited.oom_killed,
            ..Container::default()
        };
        let Some(row) = row else { return self.describe_foreign(container) };
        let row = row.clone();
        Ok(Container {
            name: row.name,
            image: row.options.unwrap_or_default().image,
            command: row.command,
            created_at: row.created_at,
            started_at: row.started_at,
            // A container that runs again has the end of no run.
            finished_at: row.finished_at.or(container.finished_at),
            oom_killed: row.oom_killed,
            labels: row.labels,
            image_id: row.image_id,
            ..container
        })
    }
}
