//! Rename: gives a container another name.

use berth_proto::berth::v1::{RenameRequest, RenameResponse};
use berth_types::{Error, Result};

use super::Containers;
use super::start::own_row;
use crate::{name, rows};

impl Containers {
    /// Gives a container a name that no other has.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for what is no name; `AlreadyExists` for a name that is
    /// taken; `FailedPrecondition` for another client's container, which has none.
    pub async fn rename(&self, request: RenameRequest) -> Result<RenameResponse> {
        let found = self.find(&request.container)?;
        let row = own_row(&found)?;
        let new = request.name.strip_prefix('/').unwrap_or(&request.name);
        if new.is_empty() {
            return Err(Error::invalid_argument("the new name is empty: give one"));
        }
        if new == row.name {
            return Err(Error::invalid_argument(
                "Renaming a container with the same name as its current name",
            ));
        }
        let names = name::candidates(new)?;
        let (namespace, id) = (self.namespace().to_owned(), found.id.clone());
        let store = &self.engine.parts().store;
        let renamed = store.write(row.durability(), move |transaction| {
            rows::rename(transaction, &namespace, &id, names)
        });
        match renamed.await? {
            Some(_) => Ok(RenameResponse { id: found.id }),
            None => Err(Error::not_found(format!("No such container: {}", request.container))),
        }
    }
}
