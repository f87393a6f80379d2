//! `berth-snapshotter`: one of the snapshotters as a proxy plugin, which containerd takes by its
//! configuration.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use berth_proto::containerd::services::snapshots::v1::snapshots_server::SnapshotsServer;
use berth_snapshotter::{Erofs, Native, Overlay, Service, probe_erofs};
use berth_store::Store;
use berth_types::{Error, Result, ResultExt};
use clap::{Parser, ValueEnum};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

/// Serves snapshots to containerd as a proxy plugin.
#[derive(Debug, Parser)]
#[command(name = "berth-snapshotter", version)]
struct Args {
    /// Socket to serve on; a daemon's configuration names it.
    #[arg(short, long)]
    address: PathBuf,
    /// Directory of the snapshots. One process at a time may have it.
    #[arg(long)]
    root: PathBuf,
    /// What layers are kept as.
    #[arg(long, value_enum, default_value_t)]
    snapshotter: Kind,
}

/// The snapshotters that there are, by the names that containerd uses.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Kind {
    /// One file for each layer.
    Erofs,
    /// A copy of the whole tree for each layer.
    Native,
    /// A directory for each layer.
    #[default]
    Overlayfs,
}

impl Kind {
    fn open(self, root: &Path, store: Store) -> Result<Service> {
        Ok(match self {
            Self::Erofs => {
                probe_erofs(root)?;
                Service::new(Arc::new(Erofs::open(&root.join("erofs"), store)?))
            }
            Self::Native => Service::new(Arc::new(Native::open(&root.join("native"), store)?)),
            Self::Overlayfs => {
                Service::new(Arc::new(Overlay::open(&root.join("overlayfs"), store)?))
            }
        })
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime
        .context(|| "start the runtime")
        .and_then(|runtime| runtime.block_on(serve(&Args::parse())));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-snapshotter: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal asks to stop.
async fn serve(args: &Args) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context(|| "catch signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context(|| "catch signals")?;
    let mut directory = fs::DirBuilder::new();
    let what = || format!("create directory {}", args.root.display());
    directory.recursive(true).mode(0o700).create(&args.root).context(what)?;
    let store = Store::open(&args.root.join("snapshots.db"))?;
    let service = args.snapshotter.open(&args.root, store)?;
    let connections = UnixListenerStream::new(listen(&args.address)?);
    Server::builder()
        .add_service(SnapshotsServer::new(service))
        .serve_with_incoming_shutdown(connections, async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
        .map_err(|error| Error::internal(format!("serve: {error}")))
}

/// Listens on `path`, which only root may connect to. A socket that is there is a leftover: the
/// database is this process's alone by now.
fn listen(path: &Path) -> Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    let listener = StdListener::bind(path).and_then(|listener| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    });
    listener.context(|| format!("listen on {}", path.display()))
}
