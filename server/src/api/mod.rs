//! The gRPC services on the main socket, one file for each.
//!
//! This is the edge: here messages become nouns, errors become statuses (`status.rs`) and the
//! tenant is read from the metadata (`tenant.rs`). The work itself is in the crates below.

mod backend;
mod containers;
mod content;
mod diff;
mod engine;
mod events;
mod images;
mod introspection;
mod leases;
mod limits;
mod mounts;
mod namespaces;
mod proxy;
mod sandbox;
mod snapshots;
mod status;
mod streaming;
mod tasks;
mod tenant;
mod transfer;
mod version;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use berth_proto::berth;
use berth_proto::containerd::services;
use berth_types::{Error, Result};

use crate::calls::Counting;
use crate::config::{Config, Grpc};
use crate::listen::may_connect;
use crate::tcp::Tcp;
pub(crate) use backend::Backend;
use containers::Containers;
use content::Content;
use diff::Diff;
pub(crate) use diff::Differ;
use engine::{Containers as EngineContainers, Images as EngineImages, System as EngineSystem};
use events::Events;
use images::Images;
use introspection::Introspection;
use leases::Leases;
use limits::Limits;
use mounts::Mounts;
use namespaces::Namespaces;
pub(crate) use sandbox::Sandboxer;
use sandbox::{Controller as SandboxController, Store as SandboxStore};
use snapshots::Snapshots;
use streaming::Streaming;
pub(crate) use streaming::Streams;
use tasks::Tasks;
use transfer::Transfer;
use version::Version;

/// Bytes that a client may have under way in one stream and on one connection: content is written
/// in messages of a megabyte and more.
const WINDOW: u32 = 4 << 20;
/// Bytes of one HTTP/2 frame: larger ones save calls on bulk data.
const FRAME: u32 = 256 << 10;
/// Bytes of the headers of one call, as Go's gRPC has it, and so containerd: tracing adds to them.
const HEADERS: u32 = 16 << 20;
/// Calls of one connection that may be cancelled before they are looked at. A client that gives up
/// on many calls at once must not lose those that it goes on with.
const CANCELLED: usize = 1 << 16;

/// All services, with the configured message limits.
///
/// # Errors
/// When the service definitions can't be read, which a test would have found.
pub(crate) fn routes(config: &Config, backend: &Backend) -> Result<Routes> {
    let mut routes = Routes::builder();
    macro_rules! serve {
        ($server:path, $service:expr) => {{
            use $server as Server;
            routes.add_service(
                Server::new($service)
                    .max_decoding_message_size(config.grpc.max_recv_message_size)
                    .max_encoding_message_size(config.grpc.max_send_message_size),
            );
        }};
    }
    serve!(services::version::v1::version_server::VersionServer, Version);
    serve!(
        services::introspection::v1::introspection_server::IntrospectionServer,
        Introspection::load(config, backend)?
    );
    macro_rules! over_backend {
        ($server:path, $service:ident) => {
            serve!($server, $service(backend.clone()))
        };
    }
    over_backend!(services::namespaces::v1::namespaces_server::NamespacesServer, Namespaces);
    over_backend!(services::images::v1::images_server::ImagesServer, Images);
    over_backend!(services::containers::v1::containers_server::ContainersServer, Containers);
    over_backend!(services::content::v1::content_server::ContentServer, Content);
    over_backend!(services::snapshots::v1::snapshots_server::SnapshotsServer, Snapshots);
    over_backend!(services::diff::v1::diff_server::DiffServer, Diff);
    over_backend!(services::tasks::v1::tasks_server::TasksServer, Tasks);
    over_backend!(services::events::v1::events_server::EventsServer, Events);
    over_backend!(services::leases::v1::leases_server::LeasesServer, Leases);
    over_backend!(services::sandbox::v1::store_server::StoreServer, SandboxStore);
    over_backend!(services::sandbox::v1::controller_server::ControllerServer, SandboxController);
    over_backend!(services::mounts::v1::mounts_server::MountsServer, Mounts);
    over_backend!(services::streaming::v1::streaming_server::StreamingServer, Streaming);
    over_backend!(services::transfer::v1::transfer_server::TransferServer, Transfer);
    over_backend!(berth::v1::containers_server::ContainersServer, EngineContainers);
    over_backend!(berth::v1::images_server::ImagesServer, EngineImages);
    over_backend!(berth::v1::system_server::SystemServer, EngineSystem);
    let (health, health_service) = tonic_health::server::health_reporter();
    drop(health);
    routes.add_service(health_service);
    routes.add_service(reflection(|builder| builder.build_v1())?);
    routes.add_service(reflection(|builder| builder.build_v1alpha())?);
    Ok(routes.routes())
}

/// A reflection service over all definitions; `build` chooses its version.
fn reflection<S>(
    build: impl FnOnce(
        tonic_reflection::server::Builder<'static>,
    ) -> std::result::Result<S, tonic_reflection::server::Error>,
) -> Result<S> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(berth_proto::FILE_DESCRIPTOR_SET);
    build(builder).map_err(|error| Error::internal(format!("describe the services: {error}")))
}

/// Serves `routes` to whoever connects and may, until the future is dropped.
///
/// # Errors
/// When connections can no longer be accepted.
pub(crate) async fn serve(
    listener: UnixListener,
    routes: Routes,
    counting: Counting,
    grpc: &Grpc,
) -> Result<()> {
    let (owner, group) = (grpc.uid, grpc.gid);
    let connections = UnixListenerStream::new(listener).filter(move |connection| {
        connection.as_ref().is_ok_and(|connection| may_connect(connection, owner, group))
    });
    serve_all(connections, routes, counting).await
}

/// The same over TCP.
///
/// # Errors
/// When connections can no longer be accepted.
pub(crate) async fn serve_tcp(tcp: Tcp, routes: Routes, counting: Counting) -> Result<()> {
    serve_all(ReceiverStream::new(tcp.connections()), routes, counting).await
}

async fn serve_all<C>(
    connections: impl Stream<Item = std::io::Result<C>>,
    routes: Routes,
    counting: Counting,
) -> Result<()>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .http2_max_header_list_size(HEADERS)
        .http2_max_pending_accept_reset_streams(Some(CANCELLED))
        .layer(counting)
        .layer(Limits)
        .add_routes(routes)
        .serve_with_incoming(connections)
        .await
        .map_err(|error| Error::internal(format!("serve: {error}")))
}
