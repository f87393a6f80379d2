//! Differs that other processes serve: proxy plugins, asked for what berth does not do itself.

use std::path::Path;
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Response, Status};

use berth_proto::containerd::services::diff::v1::diff_client::DiffClient;
use berth_proto::containerd::services::diff::v1::{
    ApplyRequest, ApplyResponse, DiffRequest, DiffResponse,
};

use super::super::proxy::{channel, passed_on};

/// How long a call may take: long enough for a large layer.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

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
        Self { name: name.to_owned(), client: DiffClient::new(channel(address)) }
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
        self.named(self.client.clone().apply(passed_on(about, request, Some(DEADLINE))).await)
    }

    pub(super) async fn diff(
        &self,
        about: &MetadataMap,
        request: DiffRequest,
    ) -> Result<Response<DiffResponse>, Status> {
        self.named(self.client.clone().diff(passed_on(about, request, Some(DEADLINE))).await)
    }

    fn named<T>(&self, outcome: Result<T, Status>) -> Result<T, Status> {
        outcome.map_err(|status| {
            Status::new(status.code(), format!("differ {}: {}", self.name, status.message()))
        })
    }
}
