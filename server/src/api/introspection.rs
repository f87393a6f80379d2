//! `containerd.services.introspection.v1.Introspection`.
//!
//! Clients read from the plugin list what a daemon can do: which snapshotters there are and their
//! capabilities, whether a service is offered. berth has no plugins; the list names what is built
//! in by the names that clients look for.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use tonic::{Request, Response, Status};

use berth_proto::containerd::services::introspection::v1::{
    Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
    introspection_server,
};
use berth_proto::containerd::types::Platform;
use berth_proto::containerd::types::RuntimeRequest;
use berth_tasks::Tasks;
use berth_types::filter::{Fields, Filter};
use berth_types::{Error, ResultExt};
use prost::{Message, Name};
use prost_types::Any;

use super::backend::Backend;
use super::status::status;
use super::streaming::decode;
use crate::config::{Config, ProxyKind};

/// A part of the daemon as clients see it.
struct Part {
    kind: &'static str,
    id: String,
}

impl Fields for Part {
    fn field(&self, path: &[String]) -> Option<&str> {
        match path {
            [name] if name == "type" => Some(self.kind),
            [name] if name == "id" => Some(&self.id),
            _ => None,
        }
    }
}

/// Everything that is built in but the snapshotters. None has capabilities: clients take those as leave to use calls
/// that are not offered here yet.
const BUILT_IN: &[(&str, &str)] = &[
    (CONTENT, "content"),
    ("io.containerd.metadata.v1", "redb"),
    (DIFFER, "walking"),
    ("io.containerd.event.v1", "exchange"),
    ("io.containerd.gc.v1", "scheduler"),
    ("io.containerd.lease.v1", "manager"),
    ("io.containerd.runtime.v2", "task"),
    (SANDBOXER, "shim"),
    ("io.containerd.sandbox.store.v1", "local"),
    ("io.containerd.monitor.container.v1", "restart"),
    ("io.containerd.grpc.v1", "containers"),
    ("io.containerd.grpc.v1", "content"),
    ("io.containerd.grpc.v1", "diff"),
    ("io.containerd.grpc.v1", "events"),
    ("io.containerd.grpc.v1", "healthcheck"),
    ("io.containerd.grpc.v1", "images"),
    ("io.containerd.grpc.v1", "introspection"),
    ("io.containerd.grpc.v1", "leases"),
    ("io.containerd.grpc.v1", "mounts"),
    ("io.containerd.grpc.v1", "namespaces"),
    ("io.containerd.grpc.v1", "sandbox-controllers"),
    ("io.containerd.grpc.v1", "sandboxes"),
    ("io.containerd.grpc.v1", "snapshots"),
    ("io.containerd.grpc.v1", "streaming"),
    ("io.containerd.grpc.v1", "tasks"),
    ("io.containerd.grpc.v1", "transfer"),
    ("io.containerd.grpc.v1", "version"),
];

/// The type of snapshotters, built in or not.
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1";

/// The type of what keeps blobs, built in or not.
const CONTENT: &str = "io.containerd.content.v1";

/// The type of differs, built in or not.
const DIFFER: &str = "io.containerd.differ.v1";

/// The type of controllers of sandboxes, built in or not.
const SANDBOXER: &str = "io.containerd.sandbox.controller.v1";

/// Types of parts that depend on the platform, whose entries carry it.
const PLATFORM_TYPES: &[&str] = &[SNAPSHOTTER, DIFFER, "io.containerd.runtime.v2"];

/// The part that can say more of itself: the runtimes.
const RUNTIMES: (&str, &str) = ("io.containerd.runtime.v2", "task");

/// Says what this daemon is and has.
pub(crate) struct Introspection {
    tasks: Tasks,
    parts: Vec<Part>,
    /// Names this installation, for ever.
    uuid: String,
    /// Inode of the pidns that process ids in answers belong to.
    pidns: u64,
}

impl Introspection {
    /// Reads what stays the same while the daemon runs; the root directory keeps the installation's
    /// id, which is made at the first start.
    ///
    /// # Errors
    /// When the id can be neither read nor kept.
    pub(crate) fn load(config: &Config, backend: &Backend) -> berth_types::Result<Self> {
        let pidns = fs::metadata("/proc/self/ns/pid").context(|| "find the pidns")?.ino();
        let uuid = load_uuid(&config.root.join("uuid"))?;
        let built_in = BUILT_IN.iter().map(|&(kind, id)| Part { kind, id: id.to_owned() });
        let snapshotters =
            backend.metadata.snapshotters().map(|id| Part { kind: SNAPSHOTTER, id: id.to_owned() });
        let differs = backend.differs.iter();
        let differs = differs.map(|differ| Part { kind: DIFFER, id: differ.name().to_owned() });
        let sandboxers = backend.sandboxers.iter();
        let sandboxers = sandboxers.map(|other| Part { kind: SANDBOXER, id: other.name().into() });
        let keepers = config.proxy_plugins.iter();
        let keepers = keepers.filter(|(_, proxy)| proxy.kind == ProxyKind::Content);
        let keepers = keepers.map(|(name, _)| Part { kind: CONTENT, id: name.clone() });
        let parts = built_in.chain(snapshotters).chain(differs).chain(sandboxers);
        let parts = parts.chain(keepers).collect();
        Ok(Self { tasks: backend.tasks.clone(), parts, uuid, pidns })
    }
}

/// Reads the installation's id from `path`, or makes one and keeps it there.
fn load_uuid(path: &Path) -> berth_types::Result<String> {
    let what = || format!("keep the installation's id in {}", path.display());
    match fs::read_to_string(path) {
        // A crash may leave the file empty; nothing but the file knew the id then.
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(what),
        _ => {}
    }
    let uuid = new_uuid()?;
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(path).context(what)?;
    file.write_all(uuid.as_bytes()).and_then(|()| file.sync_all()).context(what)?;
    Ok(uuid)
}

/// A random UUID, version 4 (RFC 9562).
fn new_uuid() -> berth_types::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::internal(format!("get random bytes: {error}")))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    Ok(format!("{a}-{b}-{c}-{d}-{e}"))
}

/// The entry of one part.
fn plugin(Part { kind, id }: &Part) -> Plugin {
    let platforms = PLATFORM_TYPES.contains(kind).then(this_platform);
    Plugin {
        r#type: (*kind).to_owned(),
        id: id.clone(),
        platforms: platforms.into_iter().collect(),
        ..Plugin::default()
    }
}

/// The platform of this machine.
fn this_platform() -> Platform {
    let host = berth_types::Platform::host();
    Platform {
        os: host.os,
        architecture: host.architecture,
        variant: host.variant,
        ..Platform::default()
    }
}

impl Introspection {
    /// What the runtime that `options` name says of itself.
    async fn runtime_info(&self, options: &Any) -> berth_types::Result<Any> {
        let RuntimeRequest { runtime_path, options } = decode(options)?;
        let info = self.tasks.info(&runtime_path, options.as_ref()).await?;
        Ok(Any {
            type_url: berth_proto::containerd::types::RuntimeInfo::full_name(),
            value: info.encode_to_vec(),
        })
    }
}

#[tonic::async_trait]
impl introspection_server::Introspection for Introspection {
    async fn plugins(
        &self,
        request: Request<PluginsRequest>,
    ) -> Result<Response<PluginsResponse>, Status> {
        let filter = Filter::parse(&request.into_inner().filters).map_err(status)?;
        let passing = self.parts.iter().filter(|part| filter.matches(*part));
        Ok(Response::new(PluginsResponse { plugins: passing.map(plugin).collect() }))
    }

    async fn server(&self, _: Request<()>) -> Result<Response<ServerResponse>, Status> {
        Ok(Response::new(ServerResponse {
            uuid: self.uuid.clone(),
            pid: u64::from(std::process::id()),
            pidns: self.pidns,
            deprecations: Vec::new(),
        }))
    }

    async fn plugin_info(
        &self,
        request: Request<PluginInfoRequest>,
    ) -> Result<Response<PluginInfoResponse>, Status> {
        let PluginInfoRequest { r#type, id, options } = request.into_inner();
        let part = self.parts.iter().find(|part| part.kind == r#type && part.id == id);
        let part = part
            .ok_or_else(|| status(Error::not_found(format!("plugin {type}.{id} is not here"))))?;
        let extra = match options {
            None => None,
            Some(options) if (part.kind, part.id.as_str()) == RUNTIMES => {
                Some(self.runtime_info(&options).await.map_err(status)?)
            }
            Some(_) => {
                let error = format!("plugin {type}.{id} has nothing more to say");
                return Err(status(Error::unimplemented(error)));
            }
        };
        Ok(Response::new(PluginInfoResponse { plugin: Some(plugin(part)), extra }))
    }
}
