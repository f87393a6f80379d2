//! The connection to the daemon.

use std::io;
use std::path::{Path, PathBuf};

use berth_proto::berth::v1::containers_client::ContainersClient;
use berth_proto::berth::v1::images_client::ImagesClient;
use berth_proto::berth::v1::system_client::SystemClient;
use berth_proto::containerd::services::streaming::v1::streaming_client::StreamingClient;
use berth_proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use berth_proto::containerd::services::version::v1::version_client::VersionClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::failure::{Failure, Outcome};

/// A channel whose requests carry the namespace.
pub(crate) type Tenant = InterceptedService<Channel, Namespace>;

/// The largest message either way: the daemon's own limit, 16 MiB.
const MESSAGE_LIMIT: usize = 16 << 20;

/// Where the daemon is and the tenant to work in.
#[derive(Debug)]
pub(crate) struct Daemon {
    address: PathBuf,
    namespace: String,
}

/// Puts the metadata key `containerd-namespace` on every request.
#[derive(Clone)]
pub(crate) struct Namespace(MetadataValue<tonic::metadata::Ascii>);

impl Interceptor for Namespace {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("containerd-namespace", self.0.clone());
        Ok(request)
    }
}

impl Daemon {
    /// Names the daemon; connects on the first use.
    pub(crate) fn new(address: PathBuf, namespace: String) -> Self {
        let address = match address.strip_prefix("unix://") {
            Ok(path) => Path::new("/").join(path),
            Err(_) => address,
        };
        Self { address, namespace }
    }

    /// The socket's path.
    pub(crate) fn address(&self) -> &Path {
        &self.address
    }

    /// The tenant to work in.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Containers by name or id.
    pub(crate) async fn containers(&self) -> Outcome<ContainersClient<Tenant>> {
        let client = ContainersClient::new(self.connect().await?);
        Ok(client.max_decoding_message_size(MESSAGE_LIMIT))
    }

    /// Images by reference or id.
    pub(crate) async fn images(&self) -> Outcome<ImagesClient<Tenant>> {
        let client = ImagesClient::new(self.connect().await?);
        Ok(client.max_decoding_message_size(MESSAGE_LIMIT))
    }

    /// The daemon itself.
    pub(crate) async fn system(&self) -> Outcome<SystemClient<Tenant>> {
        Ok(SystemClient::new(self.connect().await?))
    }

    /// The version that containerd's clients see.
    pub(crate) async fn version(&self) -> Outcome<VersionClient<Tenant>> {
        Ok(VersionClient::new(self.connect().await?))
    }

    /// Images from one place to another.
    pub(crate) async fn transfer(&self) -> Outcome<TransferClient<Tenant>> {
        Ok(TransferClient::new(self.connect().await?))
    }

    /// Streams beside transfers.
    pub(crate) async fn streaming(&self) -> Outcome<StreamingClient<Tenant>> {
        let client = StreamingClient::new(self.connect().await?);
        Ok(client.max_decoding_message_size(MESSAGE_LIMIT))
    }

    async fn connect(&self) -> Outcome<Tenant> {
        let namespace = self.namespace.parse().map_err(|_| {
            Failure::new(format!("namespace {:?} has unprintable characters", self.namespace))
        })?;
        // Connected here and not in the channel, so that the reason of a failure is known.
        let stream =
            UnixStream::connect(&self.address).await.map_err(|error| self.unreachable(&error))?;
        let mut stream = Some(TokioIo::new(stream));
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_| {
                let stream = stream.take().ok_or(io::ErrorKind::NotConnected);
                async move { stream.map_err(io::Error::from) }
            }))
            .await
            .map_err(|error| {
                let address = self.address.display();
                Failure::new(format!("The daemon at {address} does not speak gRPC: {error}"))
            })?;
        Ok(InterceptedService::new(channel, Namespace(namespace)))
    }

    /// Says what to do about a socket that can't be connected to.
    fn unreachable(&self, error: &io::Error) -> Failure {
        let address = self.address.display();
        Failure::new(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
                "Cannot connect to the berth daemon at unix://{address}. Is the berth daemon \
                 running? Start it with 'berthd', or name its socket with --address."
            ),
            io::ErrorKind::PermissionDenied => format!(
                "permission denied while trying to connect to the berth daemon socket at \
                 unix://{address}: run berth as root, or as the user who owns the socket"
            ),
            _ => format!("Cannot connect to the berth daemon at unix://{address}: {error}"),
        })
    }
}
