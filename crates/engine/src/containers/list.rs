//! List.

use berth_proto::berth::v1::{Container, ListRequest, ListResponse, State};
use berth_types::spec::Spec;
use berth_types::{Kind, Result};
use futures_util::future::join_all;

use super::Containers;
use crate::rows;

impl Containers {
    /// The containers, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn list(&self, request: ListRequest) -> Result<ListResponse> {
        let store = &self.engine.parts().store;
        let rows = store.read(|rows| rows::list(rows, self.namespace()))?;
        let ids = self.scope.containers().ids("")?;
        let described = ids.iter().map(|id| self.describe(id, rows.get(id)));
        let mut containers = Vec::new();
        for described in join_all(described).await {
            match described {
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
