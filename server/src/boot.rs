//! The composition root. [`serve`] reads top to bottom as the boot order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tonic::service::Routes;

use berth_engine::{Engine, Parts, companion};
use berth_events::Exchange;
use berth_metadata::Metadata;
use berth_pull::{Blobs, Puller, Reclaim};
use berth_store::Store;
use berth_sys::cgroup::Cgroup;
use berth_tasks::{Tasks, find_own_shim};
use berth_types::{Error, Result, ResultExt};

use crate::api::{self, Backend, Differ, Sandboxer, Streams};
use crate::calls::{Calls, Counting};
use crate::collect::Collector;
use crate::config::{Config, Grpc, ProxyKind, Sharing};
use crate::content;
use crate::embedded;
use crate::listen::listen_on;
use crate::metrics;
use crate::operations::Operations;
use crate::registries;
use crate::restart;
use crate::root::DirectoryLock;
use crate::shutdown::StopSignals;
use crate::snapshotters;
use crate::tcp::Tcp;

/// The program that runs containers.
const SHIM: &str = "containerd-shim-berth-v1";

/// How long a stop waits for operations under way.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long after the start clients who come back are told of exits that they have missed. gRPC's
/// own pauses between attempts to connect reach 3 s with containerd's client.
const COME_BACK: Duration = Duration::from_secs(10);

/// Starts everything, in order, and serves until a signal asks to stop. Containers run on
/// afterwards: the next daemon on the same directories finds them.
///
/// # Errors
/// When a step of the start fails; what was started is then stopped again.
pub(crate) async fn serve(config: Config) -> Result<()> {
    let stop = StopSignals::catch()?;
    join_cgroup(&config.cgroup.path)?;
    let registries = registries::client(&config.registries, &config.registry)?;
    let _root = DirectoryLock::of_root(&config.root)?;
    let _state = DirectoryLock::of_state(&config.state)?;
    let store = Store::open(&config.root.join("berth.db"))?;
    let metadata = open_metadata(&config, store.clone()).await?;
    let events = Exchange::keeping_exits();
    let collector = Collector::new(metadata.clone(), events.clone());
    let reclaim = reclaim(collector.clone());
    let puller = Puller::new(metadata.clone(), registries, reclaim.clone(), blobs(&config));
    puller.recover().await?;
    let tasks_config = tasks_config(&config);
    let shims = listen_on(&tasks_config.ttrpc_address(), 0, 0)?;
    let tasks = Tasks::new(tasks_config, events.clone())?;
    let operations = Operations::default();
    let engine = Engine::open(Parts {
        store,
        metadata: metadata.clone(),
        puller: puller.clone(),
        reclaim,
        tasks: tasks.clone(),
        events: events.clone(),
        carried: embedded::carried(&puller),
        background: operations.tracker(),
        root: config.root.clone(),
        state: config.state.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
    .await?;
    let mut background = JoinSet::new();
    background.spawn(collector.clone().run());
    background.spawn(serve_shims(tasks.clone(), shims));
    tasks.recover().await?;
    engine.recover().await?;
    background.spawn(engine.clone().run());
    background.spawn(restart::Monitor::new(metadata.clone(), tasks.clone()).run());
    let backend = Backend {
        metadata,
        puller: puller.clone(),
        tasks,
        engine,
        events: events.clone(),
        operations: operations.clone(),
        collector,
        processors: Arc::new(config.stream_processors.clone()),
        differs: Arc::new(differs(&config)),
        sandboxers: Arc::new(sandboxers(&config)?),
        streams: Streams::default(),
    };

    let routes = api::routes(&config, &backend)?;
    let grpc = &config.grpc;
    let mut counting = Counting(None);
    if let Some(listener) = metrics::listen(&config.metrics.address).await? {
        let calls = Arc::new(Calls::new()?);
        counting = Counting(Some(calls.clone()));
        background.spawn(serve_metrics(listener, backend.tasks.clone(), calls));
    }
    if let Some(tcp) = Tcp::listen(grpc).await? {
        background.spawn(serve_tcp(tcp, routes.clone(), counting.clone()));
    }
    let listener = listen_on(&grpc.address, grpc.uid, grpc.gid)?;
    background.spawn(serve_clients(listener, routes, counting, config.grpc.clone()));
    background.spawn(forget_exits(events));
    notify(NotifyState::Ready);
    tracing::info!(address = %grpc.address.display(), root = %config.root.display(), "ready");

    let signal = stop.received().await;
    tracing::info!(%signal, "stopping; containers run on");
    notify(NotifyState::Stopping);
    background.shutdown().await;
    drain(&puller, &operations).await
}

/// Waits for the operations under way to end.
async fn drain(puller: &Puller, operations: &Operations) -> Result<()> {
    let pulls = tokio::time::timeout(PATIENCE, puller.stop());
    let (pulls, others) = tokio::join!(pulls, operations.drain(PATIENCE));
    if pulls.is_err() || !others {
        return Err(Error::deadline_exceeded(format!(
            "operations were still under way after {} s",
            PATIENCE.as_secs()
        )));
    }
    Ok(())
}

/// Moves the daemon into its own control group, which is made if it isn't there.
fn join_cgroup(path: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let path = Path::new(path);
    let join = || {
        let cgroup = Cgroup::open(path)?;
        cgroup.make()?;
        cgroup.join(path)
    };
    join().context(|| "cgroup.path")
}

/// Opens content, snapshots and the records about them.
async fn open_metadata(config: &Config, store: Store) -> Result<Metadata> {
    let content = content::open(config)?;
    let snapshotters = snapshotters::open(config, &store)?;
    let metadata = Metadata::open(store, content, snapshotters, Some(companion())).await?;
    Ok(match config.plugins.records.content_sharing_policy {
        Sharing::Shared => metadata,
        Sharing::Isolated => metadata.isolated(),
    })
}

/// What becomes of layers that a pull has unpacked.
fn blobs(config: &Config) -> Blobs {
    match config.plugins.discard_unpacked_layers() {
        true => Blobs::Discard,
        false => Blobs::Keep,
    }
}

/// The differs that other processes serve.
fn differs(config: &Config) -> Vec<Differ> {
    let proxies = config.proxy_plugins.iter();
    let differs = proxies.filter(|(_, proxy)| proxy.kind == ProxyKind::Diff);
    differs.map(|(name, proxy)| Differ::new(name, &proxy.address)).collect()
}

/// The sandbox controllers that other processes serve.
///
/// # Errors
/// `InvalidArgument` when one is called as our own.
fn sandboxers(config: &Config) -> Result<Vec<Sandboxer>> {
    let proxies = config.proxy_plugins.iter();
    let sandboxers = proxies.filter(|(_, proxy)| proxy.kind == ProxyKind::Sandbox);
    sandboxers
        .map(|(name, proxy)| match name.as_str() {
            "shim" => Err(Error::invalid_argument(
                "sandbox controller shim is built in: give the proxy plugin another name",
            )),
            name => Ok(Sandboxer::new(name, &proxy.address)),
        })
        .collect()
}

/// What gives back the space of garbage: of a removed image, or of a pull that failed.
fn reclaim(collector: Collector) -> Reclaim {
    Arc::new(move || {
        let collector = collector.clone();
        Box::pin(async move {
            if let Err(error) = collector.collect().await {
                tracing::warn!(%error, "garbage could not be collected; it will be tried again");
            }
        })
    })
}

/// Where tasks and their shims find things.
fn tasks_config(config: &Config) -> berth_tasks::Config {
    let shim = find_own_shim().unwrap_or_else(|| {
        tracing::warn!(
            "{SHIM} is neither beside berthd nor on PATH: containers can't run until it is \
             installed and berthd started again"
        );
        PathBuf::from(SHIM)
    });
    berth_tasks::Config {
        state: config.state.clone(),
        address: config.grpc.address.clone(),
        shim,
        runtimes: config.runtimes.clone(),
    }
}

/// Takes the events of shims.
async fn serve_shims(tasks: Tasks, listener: UnixListener) {
    if let Err(error) = tasks.serve_events(&listener).await {
        tracing::error!(%error, "events of shims are no longer taken: start berthd again");
    }
}

/// Serves clients.
async fn serve_clients(listener: UnixListener, routes: Routes, counting: Counting, grpc: Grpc) {
    if let Err(error) = api::serve(listener, routes, counting, &grpc).await {
        tracing::error!(%error, "clients are no longer served: start berthd again");
    }
}

/// Serves clients over TCP.
async fn serve_tcp(tcp: Tcp, routes: Routes, counting: Counting) {
    if let Err(error) = api::serve_tcp(tcp, routes, counting).await {
        tracing::error!(%error, "clients over TCP are no longer served: start berthd again");
    }
}

/// Serves metrics.
async fn serve_metrics(listener: TcpListener, tasks: Tasks, calls: Arc<Calls>) {
    if let Err(error) = metrics::serve(listener, tasks, calls).await {
        tracing::error!(%error, "metrics are no longer served: start berthd again");
    }
}

/// Gives clients who listened to the daemon before this one the time to come back.
async fn forget_exits(events: Exchange) {
    tokio::time::sleep(COME_BACK).await;
    events.forget_exits();
}

/// Sends one message to the service manager. Without one this does nothing.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}
