//! From what a user typed to a container.

use berth_proto::containerd::services::containers::v1::Container as Record;
use berth_types::{Error, Kind, Result};

use super::Containers;
use crate::rows::{self, Row};

/// A container.
pub(super) struct Found {
    pub(super) id: String,
    /// Absent for a container that another client of the API made.
    pub(super) row: Option<Row>,
}

impl Found {
    /// How messages call it: by its name, if it has one.
    pub(super) fn shown(&self) -> &str {
        self.row.as_ref().map_or(&self.id, |row| &row.name)
    }
}

impl Containers {
    /// The container of this id or name, or the only one whose id begins so.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for the beginning of several ids.
    pub(super) fn find(&self, reference: &str) -> Result<Found> {
        // Docker's own API puts a slash before names.
        let text = reference.strip_prefix('/').unwrap_or(reference);
        let id = match self.with_id_or_name(text)? {
            Some(id) => id,
            None => self.with_prefix(text)?.ok_or_else(|| no_such_container(reference))?,
        };
        let row = self.row(&id)?;
        Ok(Found { id, row })
    }

    /// What the engine keeps of a container.
    pub(super) fn row(&self, id: &str) -> Result<Option<Row>> {
        self.engine.parts().store.read(|rows| rows::get(rows, self.namespace(), id))
    }

    /// The record of a container.
    ///
    /// # Errors
    /// `NotFound`, in Docker's words.
    pub(super) fn record(&self, id: &str) -> Result<Record> {
        self.scope.containers().get(id).map_err(|error| match error.kind() {
            Kind::NotFound => no_such_container(id),
            _ => error,
        })
    }

    fn with_id_or_name(&self, text: &str) -> Result<Option<String>> {
        if self.row(text)?.is_some() {
            return Ok(Some(text.to_owned()));
        }
        let named =
            self.engine.parts().store.read(|rows| rows::named(rows, self.namespace(), text))?;
        if named.is_some() {
            return Ok(named);
        }
        match self.scope.containers().get(text) {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            found => found.map(|record| Some(record.id)),
        }
    }

    fn with_prefix(&self, prefix: &str) -> Result<Option<String>> {
        if prefix.is_empty() {
            return Ok(None);
        }
        let mut ids = self.scope.containers().ids(prefix)?.into_iter();
        let first = ids.next();
        match ids.next() {
            Some(_) => Err(Error::invalid_argument(format!(
                "Multiple IDs found with provided prefix: {prefix}"
            ))),
            None => Ok(first),
        }
    }
}

fn no_such_container(reference: &str) -> Error {
    Error::not_found(format!("No such container: {reference}"))
}
