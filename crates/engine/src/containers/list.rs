//! List.

use berth_proto::berth::v1::{Container, ListRequest, ListResponse, State};
use berth_types::spec::Spec;
use berth_types::{Kind, Result};

use super::Containers;
use crate::rows;

impl Containers {
    /// The containers, newest first, in the states that are known without asking their shims.
    ///
    /// # Errors
    /// Those of the database.
    pub fn list(&self, request: ListRequest) -> Result<ListResponse> {
        let store = &self.engine.parts().store;
        let rows = store.read(|rows| rows::list(rows, self.namespace()))?;
        let ids = self.scope.containers().ids("")?;
        let mut containers = Vec::with_capacity(ids.len());
        for id in &ids {
            let row = rows.get(id);
            match self.describe(id, row, self.known_condition(id, row)) {
                // It was removed meanwhile.
                Err(error) if error.kind() == Kind::NotFound => {}
                described => containers.push(described?),
            }
        }
        let is_up = |container: &Container| {
            matches!(container.state(), State::Running | State::Paused | State::Unknown)
        };
        containers.retain(|container| request.all || is_up(container));
        let age = |container: &Container| {
            container.created_at.map(|created| (created.seconds, created.nanos))
        };
        containers.sort_by_key(|container| std::cmp::Reverse(age(container)));
        Ok(ListResponse { containers })
    }

    /// What a record says of another client's container.
    pub(super) fn describe_foreign(&self, container: Container) -> Result<Container> {
        let record = self.record(&container.id)?;
        let spec = record.spec.unwrap_or_default();
        // What the client wrote is its own affair.
        let spec: Spec = serde_json::from_slice(&spec.value).unwrap_or_default();
        Ok(Container {
            image: record.image,
            command: spec.process.unwrap_or_default().args,
            created_at: record.created_at,
            labels: record.labels,
            ..container
        })
    }
}
