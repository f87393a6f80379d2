//! From a registry.

use berth_metadata::Scope;
use berth_proto::containerd::services::images::v1::{Image, ImageCreate, ImageUpdate};
use berth_proto::containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, ImageStore, OciRegistry,
};
use berth_pull::PullRequest;
use berth_registry::Credentials;
use berth_types::{Error, Result};

use super::super::backend::Backend;
use super::progress::Reporter;
use super::unpacked;

/// Pulls an image and names it.
///
/// # Errors
/// Those of [`berth_pull::Puller::pull`], and `Unimplemented` for a kind of authorization that is
/// not known.
pub(super) async fn pull(
    backend: &Backend,
    scope: &Scope,
    from: OciRegistry,
    to: ImageStore,
    reporter: &Reporter,
) -> Result<()> {
    let reference: berth_types::Reference = from.reference.parse()?;
    let credentials = credentials(backend, scope, &from).await?;
    let (platform, snapshotter) = unpacked(scope, &to)?;
    let name = match to.name.as_str() {
        "" => reference.clone().canonical().to_string(),
        name => name.to_owned(),
    };
    let is_new = scope.images().get(&name).is_err();
    reporter.event("resolving", &from.reference);
    let request = PullRequest {
        namespace: scope.namespace().to_owned(),
        reference,
        name: Some(name),
        platform,
        credentials,
        snapshotter,
    };
    let image = backend.puller.pull(request, reporter.layers()).await?;
    let image = label(scope, image, to).await?;
    reporter.event("saved", &image.name);
    tell(backend, scope, image, is_new);
    Ok(())
}

/// Gives an image the labels that the client wants it to have.
pub(super) async fn label(scope: &Scope, image: Image, to: ImageStore) -> Result<Image> {
    if to.labels.is_empty() {
        return Ok(image);
    }
    let paths = to.labels.keys().map(|key| format!("labels.{key}")).collect();
    scope.images().update(Image { labels: to.labels, ..image }, paths).await
}

/// Publishes that an image is there, or is another one now.
pub(super) fn tell(backend: &Backend, scope: &Scope, image: Image, is_new: bool) {
    let Image { name, labels, .. } = image;
    if is_new {
        backend.publish(scope.namespace(), "/images/create", &ImageCreate { name, labels });
    } else {
        backend.publish(scope.namespace(), "/images/update", &ImageUpdate { name, labels });
    }
}

/// Asks the client who it is, if it has offered to say.
pub(super) async fn credentials(
    backend: &Backend,
    scope: &Scope,
    from: &OciRegistry,
) -> Result<Credentials> {
    let id = from.resolver.as_ref().map_or("", |resolver| &resolver.auth_stream);
    if id.is_empty() {
        return Ok(Credentials::Anonymous);
    }
    let mut stream = backend.streams.take(scope.namespace(), id)?;
    let reference: berth_types::Reference = from.reference.parse()?;
    let request = AuthRequest {
        host: reference.domain().to_owned(),
        reference: from.reference.clone(),
        wwwauthenticate: Vec::new(),
    };
    stream.send(&request).await?;
    let Some(answer) = stream.next::<AuthResponse>().await? else {
        return Ok(Credentials::Anonymous);
    };
    match answer.auth_type() {
        AuthType::None => Ok(Credentials::Anonymous),
        AuthType::Credentials => {
            Ok(Credentials::Password { username: answer.username, password: answer.secret })
        }
        AuthType::Refresh => Ok(Credentials::IdentityToken(answer.secret)),
        AuthType::Header => Err(Error::unimplemented("authorization by a header of the client's")),
    }
}
