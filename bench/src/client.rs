//! A client of containerd's API without a process of its own.

use std::path::PathBuf;

use anyhow::{Context, Result};
use berth_tests::Engine;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Uri};

/// A connection in the engine's namespace.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) channel: Channel,
    namespace: String,
}

impl Client {
    /// Connects to the engine's socket.
    pub(crate) async fn connect(engine: &Engine) -> Result<Self> {
        let socket = engine.address();
        let connect = move |_: Uri| {
            let socket: PathBuf = socket.clone();
            async { UnixStream::connect(socket).await.map(TokioIo::new) }
        };
        // The address is of no account: the connector knows the socket.
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await?;
        Ok(Self { channel, namespace: engine.namespace().to_owned() })
    }

    /// A request in the namespace.
    pub(crate) fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let namespace = self.namespace.parse().context("the namespace as metadata")?;
        request.metadata_mut().insert("containerd-namespace", namespace);
        Ok(request)
    }

    /// A request whose results a lease keeps.
    pub(crate) fn leased<T>(&self, lease: &str, message: T) -> Result<Request<T>> {
        let mut request = self.request(message)?;
        let lease = lease.parse().context("the lease as metadata")?;
        request.metadata_mut().insert("containerd-lease", lease);
        Ok(request)
    }
}
