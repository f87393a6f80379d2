//! Committing: what was made in a directory becomes an image, synced before its record.

use std::collections::HashSet;
use std::fs;
use std::sync::{Mutex, PoisonError};

use berth_types::{Error, Result, ResultExt};

use super::{Erofs, IMAGE, image};
use crate::contract::{CommitOptions, Kind};
use crate::directories::{blocking, missing};

impl Erofs {
    /// Makes the image of the active snapshot `key` and records it as `name`.
    pub(super) async fn commit_image(
        &self,
        name: &str,
        key: &str,
        options: CommitOptions,
    ) -> Result<()> {
        let id = self.records.get(key)?.id;
        let Some(_alone) = Committing::begin(&self.committing, id) else {
            return Err(Error::failed_precondition(format!(
                "snapshot {key:?} is being committed already"
            )));
        };
        let record = self.records.get(key)?;
        if record.kind != Kind::Active {
            return Err(Error::failed_precondition(format!(
                "snapshot {key:?} is not active, so it can't be committed"
            )));
        }
        let own = self.directory.join(record.id.to_string());
        let (files, image) = (own.join("fs"), own.join(IMAGE));
        let made = {
            let image = image.clone();
            blocking(move || image::write(&files, &image)).await
        };
        let committed = match made {
            Ok(usage) => self.records.commit(name, key, usage, options).await,
            Err(error) => Err(error),
        };
        if let Err(error) = committed {
            fs::remove_file(&image).or_else(missing).context(|| "remove an image not committed")?;
            return Err(error);
        }
        let removed = blocking(move || {
            let remove = |name| fs::remove_dir_all(own.join(name)).or_else(missing);
            remove("fs").and_then(|()| remove("work")).context(|| "remove what became an image")
        });
        // The snapshot is committed; what is left of its directory goes with it or at a start.
        if let Err(error) = removed.await {
            tracing::warn!(name, %error, "a committed snapshot takes more space than it needs");
        }
        self.layers.release(record.id).await
    }
}

/// A commit under way.
struct Committing<'a>(&'a Mutex<HashSet<u64>>, u64);

impl<'a> Committing<'a> {
    fn begin(all: &'a Mutex<HashSet<u64>>, id: u64) -> Option<Self> {
        let mut ids = all.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(id).then(|| Self(all, id))
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}
