//! Differs that other processes serve: proxy plugins, asked for what berth does not do itself.

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use berth_proto::containerd::services::diff::v1::diff_client::DiffClient;
use berth_proto::containerd::services::diff::v1::{
    ApplyRequest, ApplyResponse, DiffRequest, DiffResponse,
};

/// How long a call may take: long enough for a large layer.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

/// What tells a differ whom a call is for.
const ABOUT: [&str; 2] = ["containerd-namespace", "containerd-lease"];

/// A differ of another process.
#[derive(Clone)]
pub(crate) struct Differ {
    name: String,
    client: DiffClient<Channel>,
}

impl Differ {
    /// The differ that listens on the socket at `address`. Nothing is connected before the first
    /// call.
    pub(crate) fn new(name: &str, address: &Path) -> Self {
        let address = address.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let address = address.clone();
            async move { UnixStream::connect(address).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost").timeout(DEADLINE);
        let channel = endpoint.connect_with_connector_lazy(connector);
        Self { name: name.to_owned(), client: DiffClient::new(channel) }
    }

    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn apply(
        &self,
        about: &MetadataMap,
        request: ApplyRequest,
    ) -> Result<Response<ApplyResponse>, Status> {
        self.named(self.client.clone().apply(passed_on(about, request)).await)
    }

    pub(super) async fn diff(
        &self,
        about: &MetadataMap,
        request: DiffRequest,
    ) -> Result<Response<DiffResponse>, Status> {
        self.named(self.client.clone().diff(passed_on(about, request)).await)
    }

    fn named<T>(&self, outcome: Result<T, Status>) -> Result<T, Status> {
        outcome.map_err(|status| {
            Status::new(status.code(), format!("differ {}: {}", self.name, status.message()))
        })
    }
}

fn passed_on<T>(about: &MetadataMap, message: T) -> Request<T> {
    let mut request = Request::new(message);
    for key in ABOUT {
        if let Some(value) = about.get(key) {
            request.metadata_mut().insert(key, value.clone());
        }
    }
    request
}
