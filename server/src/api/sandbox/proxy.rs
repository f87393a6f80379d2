//! Sandbox controllers that other processes serve: proxy plugins, which clients choose by name.

use std::path::Path;
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use berth_proto::containerd::services::sandbox::v1::controller_client::ControllerClient;

use super::super::proxy::{channel, passed_on};

/// How long a call may take, but those that wait for the sandbox itself: one may boot a machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// A sandbox controller of another process.
#[derive(Clone)]
pub(crate) struct Sandboxer {
    name: String,
    client: ControllerClient<Channel>,
}

impl Sandboxer {
    /// The controller that listens on the socket at `address`. Nothing is connected before the
    /// first call.
    pub(crate) fn new(name: &str, address: &Path) -> Self {
        Self { name: name.to_owned(), client: ControllerClient::new(channel(address)) }
    }

    /// Its name in the configuration, which is also that in requests.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A call of a client that is passed on.
    pub(super) fn request<T>(&self, about: &MetadataMap, message: T) -> Request<T> {
        passed_on(about, message, Some(DEADLINE))
    }

    /// The same for a call that may take for ever.
    pub(super) fn waiting<T>(&self, about: &MetadataMap, message: T) -> Request<T> {
        passed_on(about, message, None)
    }

    pub(super) fn client(&self) -> ControllerClient<Channel> {
        self.client.clone()
    }

    /// An answer whose failure says whose it is.
    pub(super) fn named<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, Status> {
        answer.map(Response::into_inner).map_err(|status| {
            let words = format!("sandbox controller {}: {}", self.name, status.message());
            Status::new(status.code(), words)
        })
    }
}
