//! From an archive that the client sends.

use berth_metadata::Scope;
use berth_proto::containerd::types::transfer::{ImageImportStream, ImageStore};
use berth_pull::ImportRequest;
use berth_types::Result;

use super::super::backend::Backend;
use super::progress::Reporter;
use super::pull::{label, tell};
use super::{bytes, unpacked};

/// Brings the images of an archive into the stores, named as the archive says.
///
/// # Errors
/// `NotFound` without the stream; those of [`berth_pull::Puller::import`].
pub(super) async fn import(
    backend: &Backend,
    scope: &Scope,
    from: ImageImportStream,
    to: ImageStore,
    reporter: &Reporter,
) -> Result<()> {
    let (platform, snapshotter) = unpacked(scope, &to)?;
    let archive = bytes::receive(backend.streams.take(scope.namespace(), &from.stream)?);
    let namespace = scope.namespace().to_owned();
    let known = scope.images().list(&[])?;
    let request = ImportRequest { namespace, platform, snapshotter };
    for image in backend.puller.import(request, archive, reporter.layers()).await? {
        let is_new = known.iter().all(|known| known.name != image.name);
        let image = label(scope, image, to.clone()).await?;
        reporter.event("saved", &image.name);
        tell(backend, scope, image, is_new);
    }
    Ok(())
}
