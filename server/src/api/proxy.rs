//! Services that other processes serve: proxy plugins.

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint, Uri};

/// What tells a service whom a call is for.
const ABOUT: [&str; 2] = ["containerd-namespace", "containerd-lease"];

/// A connection to who listens on the socket at `address`, which is made when it is first needed.
pub(super) fn channel(address: &Path) -> Channel {
    let address = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let address = address.clone();
        async move { UnixStream::connect(address).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

/// A client's call, which may take `deadline`, as it is passed on.
pub(super) fn passed_on<T>(
    about: &MetadataMap,
    message: T,
    deadline: Option<Duration>,
) -> Request<T> {
    let mut request = Request::new(message);
    for key in ABOUT {
        if let Some(value) = about.get(key) {
            request.metadata_mut().insert(key, value.clone());
        }
    }
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    request
}
