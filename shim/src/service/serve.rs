//! `serve`: the shim itself. It listens on the socket that is its standard input.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_ttrpc::Server;
use berth_types::{Result, ResultExt};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::flags::Flags;
use super::shim::{Service, Shim};
use super::{bundle, reaper};
use crate::log::{Format, Log};

/// What lists of processes call the shim: as much of its program's name as they have room for.
/// It is executed through a descriptor, whose number it would be called by.
const NAME: &CStr = c"containerd-shim";
/// How long the shim's end waits for its last events to be forwarded.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the answer to Shutdown may take to leave.
const LAST_ANSWER: Duration = Duration::from_millis(10);

/// Serves until Shutdown.
///
/// # Errors
/// When standard input is no listening socket, and when the kernel refuses what the shim is built
/// on.
pub(super) fn serve(flags: &Flags) -> Result<()> {
    Log { debug: flags.debug, format: Format::Text, file: None }.start();
    rustix::thread::set_name(NAME)
        .map_err(std::io::Error::from)
        .context(|| "name the shim's process")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "start the runtime")?;
    runtime.block_on(serve_socket(flags))
}

async fn serve_socket(flags: &Flags) -> Result<()> {
    let children = reaper::prepare()?;
    // A terminal's or an init system's wish to end is for the container, which has its own.
    let _ignored = ignore_wishes()?;
    let listener = take_listener()?;
    let socket = path_of(&listener);
    let shim = Arc::new(Shim::new(flags.namespace.clone(), flags.id.clone(), bundle(flags)?));
    let service = Server::new(Arc::new(Service(shim.clone())));
    let address = events_address(flags);
    let mut forwarding = std::pin::pin!(shim.events.run(&address));
    tokio::select! {
        outcome = service.serve(&listener) => outcome?,
        outcome = shim.reaper.run(children) => outcome?,
        () = &mut forwarding => {}
        () = shim.shutdown.notified() => {}
    }
    // The connections are served on by tasks of their own until the runtime ends.
    if let Some(socket) = socket {
        // A daemon may have been faster.
        let _ = std::fs::remove_file(socket);
    }
    let last_events = async {
        tokio::select! {
            () = forwarding => {}
            () = shim.events.flushed() => {}
        }
    };
    if tokio::time::timeout(FAREWELL, last_events).await.is_err() {
        tracing::warn!("the daemon is away: the last events are lost");
    }
    tokio::time::sleep(LAST_ANSWER).await;
    Ok(())
}

fn ignore_wishes() -> Result<[Signal; 2]> {
    let ignore = |kind| signal(kind).context(|| "handle signals");
    Ok([ignore(SignalKind::terminate())?, ignore(SignalKind::interrupt())?])
}

/// Takes the socket away from standard input, which no child may get.
fn take_listener() -> Result<UnixListener> {
    let take = || -> std::io::Result<_> {
        let listener = StdListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    };
    take().context(|| "take the listening socket that is standard input")
}

fn path_of(listener: &UnixListener) -> Option<PathBuf> {
    let address = listener.local_addr().ok()?;
    address.as_pathname().map(Path::to_owned)
}

/// Where the daemon takes events.
fn events_address(flags: &Flags) -> PathBuf {
    match std::env::var_os("TTRPC_ADDRESS").filter(|address| !address.is_empty()) {
        Some(address) => PathBuf::from(address),
        None => PathBuf::from(format!("{}.ttrpc", flags.address)),
    }
}
