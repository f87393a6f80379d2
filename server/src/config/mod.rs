//! The configuration file, with containerd's names where the thing is the same.

mod imports;
mod load;
mod plugins;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::LevelFilter;

use berth_types::{Error, Result};

pub(crate) use load::{load, load_if_there};
pub(crate) use plugins::{Plugins, Sharing};

/// Where the file is looked for when no flag names one.
pub(crate) const DEFAULT_PATH: &str = "/etc/berth/config.toml";

/// The newest version of the file's layout; it is that of containerd 2.x, as far as keys are
/// shared. Versions 2 and 3 do not differ in them.
const VERSION: u32 = 4;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Version of the file's layout, 2 to 4.
    pub(crate) version: u32,
    /// Further files, by path relative to this one, with `*` in their names. What they say counts.
    pub(crate) imports: Vec<String>,
    /// Directory of what is kept: database, content, snapshots.
    pub(crate) root: PathBuf,
    /// Directory of what a reboot ends: sockets and bundles.
    pub(crate) state: PathBuf,
    /// The snapshotter of who names none; empty for `erofs` where the kernel has it, else
    /// `overlayfs`.
    pub(crate) snapshotter: String,
    /// The socket.
    pub(crate) grpc: Grpc,
    /// Metrics for Prometheus.
    pub(crate) metrics: Metrics,
    /// The log.
    pub(crate) debug: Debug,
    /// The daemon's own control group.
    pub(crate) cgroup: Group,
    /// Runtimes that are run by another shim than their name says: name to binary.
    pub(crate) runtimes: BTreeMap<String, PathBuf>,
    /// Parts of the daemon that other processes serve, by the name that clients choose them by.
    pub(crate) proxy_plugins: BTreeMap<String, ProxyPlugin>,
    /// What containerd configures as plugins, as far as berth has the same.
    pub(crate) plugins: Plugins,
    /// Programs that make layers of other blobs, by names of the administrator's choice.
    pub(crate) stream_processors: BTreeMap<String, StreamProcessor>,
    /// Files that say how registries are reached.
    pub(crate) registry: RegistryFiles,
    /// How registries are reached, by host and port.
    pub(crate) registries: BTreeMap<String, Registry>,
}

/// A program that makes a layer, or something nearer to one, of a blob.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct StreamProcessor {
    /// The media types that it takes.
    pub(crate) accepts: Vec<String>,
    /// The media type of what it makes.
    pub(crate) returns: String,
    /// The program.
    pub(crate) path: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub(crate) args: Vec<String>,
    /// Variables besides the daemon's: `NAME=VALUE`.
    #[serde(default)]
    pub(crate) env: Vec<String>,
}

/// Files that say how registries are reached.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RegistryFiles {
    /// The directory with a directory for each registry, and `hosts.toml` in it; or several, with
    /// `:` between them. Empty for none.
    pub(crate) config_path: PathBuf,
    /// Docker's `config.json`, with logins. Empty for none.
    pub(crate) docker_config: PathBuf,
}

/// A part of the daemon that another process serves.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct ProxyPlugin {
    /// What it is.
    #[serde(rename = "type")]
    pub(crate) kind: ProxyKind,
    /// The socket that it listens on.
    pub(crate) address: PathBuf,
}

/// What another process may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProxyKind {
    /// A snapshotter.
    Snapshot,
    /// A differ.
    Diff,
    /// A store of content.
    Content,
    /// A controller of sandboxes.
    Sandbox,
}

/// How one registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Registry {
    /// Files with certificates (PEM) of authorities to trust besides the system's.
    pub(crate) ca: Vec<PathBuf>,
    /// Speak HTTP without TLS.
    pub(crate) plain_http: bool,
    /// Accept any certificate, and plain HTTP where there is no TLS.
    pub(crate) insecure: bool,
    /// Who pulls, unless the client says.
    pub(crate) username: Option<String>,
    /// The file with the password or access token, which `config dump` thus can't show.
    pub(crate) password_file: Option<PathBuf>,
}

/// The socket that clients connect to.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Grpc {
    /// Its path. The socket for shims is beside it, with `.ttrpc` appended.
    pub(crate) address: PathBuf,
    /// Its owner.
    pub(crate) uid: u32,
    /// Its group, which may connect too unless it is 0.
    pub(crate) gid: u32,
    /// `HOST:PORT` where clients with a certificate connect. Empty for none.
    pub(crate) tcp_address: String,
    /// The authority of their certificates, a PEM file.
    pub(crate) tcp_tls_ca: PathBuf,
    /// The daemon's certificate there, a PEM file.
    pub(crate) tcp_tls_cert: PathBuf,
    /// Its key, a PEM file.
    pub(crate) tcp_tls_key: PathBuf,
    /// The largest request, in bytes.
    pub(crate) max_recv_message_size: usize,
    /// The largest response, in bytes.
    pub(crate) max_send_message_size: usize,
}

/// Metrics for Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Metrics {
    /// `HOST:PORT` where they are served, to anyone, as `/v1/metrics`. Empty for none.
    pub(crate) address: String,
}

/// A control group for the daemon and its shims.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Group {
    /// Its path in each hierarchy, made where it is missing; empty to stay where the daemon was
    /// started.
    pub(crate) path: String,
}

/// The log, which goes to standard error.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Debug {
    /// How much to log.
    pub(crate) level: Level,
}

/// How much to log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub(crate) enum Level {
    Trace,
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

impl Level {
    /// The level as the log's library names it.
    pub(crate) fn as_filter(self) -> LevelFilter {
        match self {
            Level::Trace => LevelFilter::TRACE,
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error => LevelFilter::ERROR,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: VERSION,
            imports: Vec::new(),
            root: PathBuf::from("/var/lib/berth"),
            state: PathBuf::from("/run/berth"),
            snapshotter: String::new(),
            grpc: Grpc::default(),
            metrics: Metrics::default(),
            debug: Debug::default(),
            cgroup: Group::default(),
            runtimes: BTreeMap::new(),
            proxy_plugins: BTreeMap::new(),
            plugins: Plugins::default(),
            stream_processors: BTreeMap::new(),
            registry: RegistryFiles::default(),
            registries: BTreeMap::new(),
        }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            address: PathBuf::from("/run/berth/berth.sock"),
            uid: 0,
            gid: 0,
            tcp_address: String::new(),
            tcp_tls_ca: PathBuf::new(),
            tcp_tls_cert: PathBuf::new(),
            tcp_tls_key: PathBuf::new(),
            max_recv_message_size: 16 << 20,
            max_send_message_size: 16 << 20,
        }
    }
}

impl Config {
    /// The same in the newest layout, in one file.
    pub(crate) fn migrated(self) -> Self {
        let plugins = self.plugins.migrated();
        Self { version: VERSION, imports: Vec::new(), plugins, ..self }
    }

    /// The configuration as a file would say it.
    ///
    /// # Errors
    /// [`Kind::Internal`](berth_types::Kind::Internal) for a path that is not UTF-8.
    pub(crate) fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::internal(format!("write configuration: {e}")))
    }
}
