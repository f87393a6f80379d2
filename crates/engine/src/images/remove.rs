//! Remove: takes names from an image, and with the last one the image.

use berth_proto::berth::v1::{RemoveImageRequest, RemoveImageResponse};
use berth_proto::containerd::services::images::v1::{Image as Record, ImageDelete};
use berth_types::{Error, Result};

use super::{Images, familiar, no_such_image, short, target};

/// A container that an image is used by.
struct User {
    id: String,
    runs: bool,
}

impl Images {
    /// Removes one name of an image, or all of them when its id is given. With the last name goes
    /// the content, unless something else needs it: its space is free when this returns.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition`, in Docker's words, when containers use it or an id has
    /// several names, which `force` overrides but for running containers.
    pub async fn remove(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse> {
        let RemoveImageRequest { image: text, force } = request;
        let record = self.find(&text).await?.ok_or_else(|| no_such_image(&text))?;
        let id = self.id(&record).await?;
        let all = self.names_of(&id).await?;
        let by_name = self.is_name_of(&text, &record);
        let names = if by_name { vec![record] } else { all.clone() };
        if names.len() > 1 && !force {
            return Err(conflict(&id, true, "image is referenced in multiple repositories"));
        }
        let is_last = names.len() == all.len();
        if is_last {
            self.check_unused(&id, force)?;
        }
        let mut untagged = Vec::new();
        for record in names {
            self.scope.images().delete(&record.name, Some(target(&record)?.digest)).await?;
            untagged.push(familiar(&record.name));
            let event = ImageDelete { name: record.name };
            self.engine.publish(self.scope.namespace(), "/images/delete", &event);
        }
        if is_last {
            (self.engine.parts().reclaim)().await;
        }
        Ok(RemoveImageResponse { untagged, deleted: is_last.then_some(id).into_iter().collect() })
    }

    /// Whether `text` is a name and no id.
    fn is_name_of(&self, text: &str, record: &Record) -> bool {
        let reference = text.parse::<berth_types::Reference>();
        text == record.name
            || reference.is_ok_and(|known| known.canonical().to_string() == record.name)
    }

    async fn names_of(&self, id: &str) -> Result<Vec<Record>> {
        let mut names = Vec::new();
        for record in self.scope.images().list(&[])? {
            if self.id(&record).await? == id {
                names.push(record);
            }
        }
        Ok(names)
    }

    fn check_unused(&self, id: &str, force: bool) -> Result<()> {
        for user in self.users(id)? {
            let container = short(&user.id);
            if user.runs {
                let why = format!("image is being used by running container {container}");
                return Err(conflict(id, false, &why));
            }
            if !force {
                let why = format!("image is being used by stopped container {container}");
                return Err(conflict(id, true, &why));
            }
        }
        Ok(())
    }

    /// The containers of an image, running ones first.
    fn users(&self, image_id: &str) -> Result<Vec<User>> {
        let parts = self.engine.parts();
        let namespace = self.scope.namespace();
        let rows = parts.store.read(|rows| crate::rows::list(rows, namespace))?;
        let ours = rows.into_iter().filter(|(_, row)| row.image_id == image_id);
        let mut users: Vec<_> = ours.map(|(id, row)| User { runs: row.is_running(), id }).collect();
        users.sort_by_key(|user| !user.runs);
        Ok(users)
    }
}

fn conflict(id: &str, may_force: bool, why: &str) -> Error {
    let how = if may_force { "must be forced" } else { "cannot be forced" };
    let id = short(id);
    Error::failed_precondition(format!("conflict: unable to delete {id} ({how}) - {why}"))
}
