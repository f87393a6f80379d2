//! `containerd.services.transfer.v1.Transfer`: images from one place to another, in one call.
//!
//! What is sent or received meanwhile goes through streams that the client has opened before (see
//! `streaming.rs`): an archive, progress, credentials.

mod bytes;
mod export;
mod import;
mod progress;
mod pull;
mod push;
mod tag;

use prost_types::Any;
use tonic::{Request, Response, Status};

use berth_metadata::Scope;
use berth_proto::containerd::services::transfer::v1::{TransferRequest, transfer_server};
use berth_proto::containerd::types::Platform as WirePlatform;
use berth_proto::containerd::types::transfer::ImageStore;
use berth_types::{Error, Platform, Result as Outcome};

use self::progress::Reporter;
use super::backend::Backend;
use super::streaming::decode;

/// Brings images from one place to another.
pub(crate) struct Transfer(pub(crate) Backend);

#[tonic::async_trait]
impl transfer_server::Transfer for Transfer {
    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<()>, Status> {
        let (metadata, _, request) = request.into_parts();
        let done = self.0.change(&metadata, |backend, scope| async move {
            carry(&backend, &scope, request).await
        });
        done.await.map(Response::new)
    }
}

/// Does what source and destination mean together.
async fn carry(backend: &Backend, scope: &Scope, request: TransferRequest) -> Outcome<()> {
    let TransferRequest { source, destination, options } = request;
    let (source, destination) = (source.unwrap_or_default(), destination.unwrap_or_default());
    let progress = options.unwrap_or_default().progress_stream;
    let stream = match progress.as_str() {
        "" => None,
        id => Some(backend.streams.take(scope.namespace(), id)?),
    };
    let reporter = Reporter::on(stream);
    match (kind(&source), kind(&destination)) {
        ("OCIRegistry", "ImageStore") => {
            let (from, to) = (decode(&source)?, decode(&destination)?);
            pull::pull(backend, scope, from, to, &reporter).await
        }
        ("ImageImportStream", "ImageStore") => {
            let (from, to) = (decode(&source)?, decode(&destination)?);
            import::import(backend, scope, from, to, &reporter).await
        }
        ("ImageStore", "ImageExportStream") => {
            let (from, to) = (decode(&source)?, decode(&destination)?);
            export::export(backend, scope, from, to, &reporter).await
        }
        ("ImageStore", "OCIRegistry") => {
            let (from, to) = (decode(&source)?, decode(&destination)?);
            push::push(backend, scope, from, to, &reporter).await
        }
        ("ImageStore", "ImageStore") => {
            tag::tag(backend, scope, decode(&source)?, decode(&destination)?).await
        }
        (from, to) => Err(Error::unimplemented(format!(
            "a transfer from {from:?} to {to:?} is not supported"
        ))),
    }
}

/// The last part of a message's type.
fn kind(message: &Any) -> &str {
    message.type_url.rsplit(['.', '/']).next().unwrap_or_default()
}

/// For which platform and by which snapshotter an image is to be unpacked.
fn unpacked(scope: &Scope, store: &ImageStore) -> Outcome<(Platform, String)> {
    let first = store.unpacks.first().cloned().unwrap_or_default();
    let wanted = first.platform.as_ref().or_else(|| store.platforms.first());
    let platform = wanted.map(platform).unwrap_or_else(Platform::host);
    let snapshotter = match first.snapshotter.as_str() {
        "" => scope.snapshotter()?,
        name => name.to_owned(),
    };
    Ok((platform, snapshotter))
}

/// A platform of the wire.
fn platform(wire: &WirePlatform) -> Platform {
    Platform {
        os: wire.os.clone(),
        architecture: wire.architecture.clone(),
        variant: wire.variant.clone(),
        ..Platform::host()
    }
}
