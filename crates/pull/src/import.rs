//! Images from an archive: an OCI layout in a tar file (`image-layout.md`), or what `docker save`
//! writes, compressed or not.

mod archive;
mod names;

use std::io::Read;

use berth_metadata::Scope;
use berth_proto::containerd::services::images::v1::Image;
use berth_sys::malloc;
use berth_types::{Result, ResultExt};

use crate::progress::Progress;
use crate::puller::{ImportRequest, Puller};
use crate::session::Policy;
use archive::Archive;
use names::Named;

impl Puller {
    /// Brings the images of an archive into the stores, unpacked and named as the archive says.
    /// Goes on when the caller gives up. Returns the images' records, which are on the disk.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`](berth_types::Kind::InvalidArgument) when the archive is malformed
    /// or names no image; else as [`Puller::unpack`].
    pub async fn import(
        &self,
        request: ImportRequest,
        reader: impl Read + Send + 'static,
        progress: Progress,
    ) -> Result<Vec<Image>> {
        let this = self.clone();
        let work = async move {
            let namespace = request.namespace.clone();
            let work = |scope| this.run_import(scope, request, reader, progress);
            let imported = this.leases().with(this.metadata(), &namespace, "import", work).await;
            // Its buffers are no longer needed.
            tokio::task::spawn_blocking(malloc::give_back);
            imported
        };
        self.run(work).await.context(|| "import images")
    }

    async fn run_import(
        &self,
        scope: Scope,
        request: ImportRequest,
        reader: impl Read + Send + 'static,
        progress: Progress,
    ) -> Result<Vec<Image>> {
        let archive = Archive::store(scope.clone(), reader).await?;
        let found = names::find(&scope, &archive).await?;
        for Named { name, target } in &found {
            let snapshotter = request.snapshotter.clone();
            let mut session =
                self.session(&scope, None, snapshotter, progress.clone(), Policy::Keep);
            session.realize(target, &request.platform).await.context(|| name.clone())?;
        }
        // Not before all of them are there: an archive is imported as a whole or not at all.
        let mut images = Vec::with_capacity(found.len());
        for Named { name, target } in &found {
            images.push(self.name(&request.namespace, name, target).await?);
        }
        Ok(images)
    }
}
