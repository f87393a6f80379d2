//! To a registry.

use berth_metadata::Scope;
use berth_proto::containerd::types::transfer::{ImageStore, OciRegistry};
use berth_pull::PushRequest;
use berth_types::Result;
use berth_types::image::Descriptor;

use super::super::backend::Backend;
use super::platform;
use super::progress::Reporter;
use super::pull::credentials;

/// Pushes an image.
///
/// # Errors
/// `NotFound` without the image or its content; those of [`berth_pull::Puller::push`].
pub(super) async fn push(
    backend: &Backend,
    scope: &Scope,
    from: ImageStore,
    to: OciRegistry,
    reporter: &Reporter,
) -> Result<()> {
    let target = scope.images().get(&from.name)?.target.unwrap_or_default();
    let size = u64::try_from(target.size).unwrap_or_default();
    let request = PushRequest {
        namespace: scope.namespace().to_owned(),
        target: Descriptor::new(target.media_type, target.digest.parse()?, size),
        reference: to.reference.parse()?,
        platforms: from.platforms.iter().map(platform).collect(),
        credentials: credentials(backend, scope, &to).await?,
    };
    let pushed = backend.puller.push(request, reporter.layers()).await?;
    reporter.arrived("pushed", &to.reference, &pushed);
    Ok(())
}
