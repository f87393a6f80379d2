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
use berth_types::filter::{Fields, Filter};
use berth_types::{Error, ResultExt};

use super::status::status;

/// A part of the daemon as clients see it.
struct Part {
    kind: &'static str,
    id: &'static str,
}

impl Fields for Part {
    fn field(&self, path: &[String]) -> Option<&str> {
        match path {
            [name] if name == "type" => Some(self.kind),
            [name] if name == "id" => Some(self.id),
            _ => None,
        }
    }
}

/// Everything that is built in. None has capabilities: clients take those as leave to use calls
/// that are not offered here yet.
const PARTS: &[Part] = &[
    Part { kind: "io.containerd.content.v1", id: "content" },
    Part { kind: "io.containerd.metadata.v1", id: "redb" },
    Part { kind: "io.containerd.snapshotter.v1", id: "overlayfs" },
    Part { kind: "io.containerd.differ.v1", id: "walking" },
    Part { kind: "io.containerd.event.v1", id: "exchange" },
    Part { kind: "io.containerd.gc.v1", id: "scheduler" },
    Part { kind: "io.containerd.lease.v1", id: "manager" },
    Part { kind: "io.containerd.runtime.v2", id: "task" },
    Part { kind: "io.containerd.grpc.v1", id: "containers" },
    Part { kind: "io.containerd.grpc.v1", id: "content" },
    Part { kind: "io.containerd.grpc.v1", id: "diff" },
    Part { kind: "io.containerd.grpc.v1", id: "events" },
    Part { kind: "io.containerd.grpc.v1", id: "healthcheck" },
    Part { kind: "io.containerd.grpc.v1", id: "images" },
    Part { kind: "io.containerd.grpc.v1", id: "introspection" },
    Part { kind: "io.containerd.grpc.v1", id: "leases" },
    Part { kind: "io.containerd.grpc.v1", id: "namespaces" },
    Part { kind: "io.containerd.grpc.v1", id: "snapshots" },
    Part { kind: "io.containerd.grpc.v1", id: "tasks" },
    Part { kind: "io.containerd.grpc.v1", id: "version" },
];

/// Types of parts that depend on the platform, whose entries carry it.
const PLATFORM_TYPES: &[&str] =
    &["io.containerd.snapshotter.v1", "io.containerd.differ.v1", "io.containerd.runtime.v2"];

/// Says what this daemon is and has.
#[derive(Debug)]
pub(crate) struct Introspection {
    /// Names this installation, for ever.
    uuid: String,
    /// Inode of the pidns that process ids in answers belong to.
    pidns: u64,
}

impl Introspection {
    /// Reads what stays the same while the daemon runs; `root` keeps the installation's id, which
    /// is made at the first start.
    ///
    /// # Errors
    /// When the id can be neither read nor kept.
    pub(crate) fn load(root: &Path) -> berth_types::Result<Self> {
        let pidns = fs::metadata("/proc/self/ns/pid").context(|| "find the pidns")?.ino();
        Ok(Self { uuid: load_uuid(&root.join("uuid"))?, pidns })
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
fn plugin(&Part { kind, id }: &Part) -> Plugin {
    let platforms = PLATFORM_TYPES.contains(&kind).then(this_platform);
    Plugin {
        r#type: kind.to_owned(),
        id: id.to_owned(),
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

#[tonic::async_trait]
impl introspection_server::Introspection for Introspection {
    async fn plugins(
        &self,
        request: Request<PluginsRequest>,
    ) -> Result<Response<PluginsResponse>, Status> {
        let filter = Filter::parse(&request.into_inner().filters).map_err(status)?;
        let passing = PARTS.iter().filter(|part| filter.matches(*part));
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
        let PluginInfoRequest { r#type, id, .. } = request.into_inner();
        let part = PARTS.iter().find(|part| part.kind == r#type && part.id == id);
        let part = part
            .ok_or_else(|| status(Error::not_found(format!("plugin {type}.{id} is not here"))))?;
        Ok(Response::new(PluginInfoResponse { plugin: Some(plugin(part)), extra: None }))
    }
}
