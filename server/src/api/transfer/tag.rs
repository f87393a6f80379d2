//! From one name to another.

use berth_metadata::Scope;
use berth_proto::containerd::services::images::v1::Image;
use berth_proto::containerd::types::transfer::ImageStore;
use berth_types::{Kind, Result};

use super::super::backend::Backend;
use super::pull::tell;

/// Lets another name point at an image too.
///
/// # Errors
/// `NotFound` without the image; those of [`berth_metadata::Images::create`].
pub(super) async fn tag(
    backend: &Backend,
    scope: &Scope,
    from: ImageStore,
    to: ImageStore,
) -> Result<()> {
    let source = scope.images().get(&from.name)?;
    let image =
        Image { name: to.name, labels: to.labels, target: source.target, ..Image::default() };
    let (image, is_new) = match scope.images().create(image.clone()).await {
        Ok(image) => (image, true),
        Err(error) if error.kind() == Kind::AlreadyExists => {
            let mut paths = vec!["target".to_owned()];
            paths.extend(image.labels.keys().map(|key| format!("labels.{key}")));
            (scope.images().update(image, paths).await?, false)
        }
        Err(error) => return Err(error),
    };
    tell(backend, scope, image, is_new);
    Ok(())
}
