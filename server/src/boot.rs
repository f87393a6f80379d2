//! The composition root. [`serve`] reads top to bottom as the boot order.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use berth_content::ContentStore;
use berth_events::Exchange;
use berth_metadata::Metadata;
use berth_snapshotter::Overlay;
use berth_store::Store;
use berth_types::{Error, Result};

use crate::api::{self, Backend};
use crate::collect::Collector;
use crate::config::Config;
use crate::listen::listen_on;
use crate::operations::Operations;
use crate::root::{self, RootLock};
use crate::shutdown::StopSignals;

/// How long a stop waits for operations under way.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts everything, in order, and serves until a signal asks to stop. Containers run on
/// afterwards: the next daemon on the same directories finds them.
///
/// # Errors
/// When a step of the start fails; what was started is then stopped again.
pub(crate) async fn serve(config: Config) -> Result<()> {
    let stop = StopSignals::catch()?;
    let _lock = RootLock::take(&config.root)?;
    root::create_state(&config.state)?;
    let store = Store::open(&config.root.join("berth.db"))?;
    let backend = open_backend(&config, store).await?;
    let collector = tokio::spawn(backend.collector.clone().run());
    let routes = api::routes(&config, &backend)?;
    let listener = listen_on(&config.grpc)?;
    let server = tokio::spawn(api::serve(listener, routes));
    announce_ready();
    tracing::info!(address = %config.grpc.address.display(), root = %config.root.display(), "ready");

    let signal = stop.received().await;
    tracing::info!(%signal, "stopping; containers run on");
    notify(NotifyState::Stopping);
    server.abort();
    collector.abort();
    if !backend.operations.drain(PATIENCE).await {
        return Err(Error::deadline_exceeded(format!(
            "operations were still under way after {} s",
            PATIENCE.as_secs()
        )));
    }
    Ok(())
}

/// Opens content, snapshots and the records about them.
async fn open_backend(config: &Config, store: Store) -> Result<Backend> {
    let content = ContentStore::open(&config.root)?;
    let overlay = Overlay::open(&config.root.join("snapshots/overlayfs"), store.clone())?;
    let metadata = Metadata::open(store, content, vec![Arc::new(overlay)], None).await?;
    let events = Exchange::new();
    let collector = Collector::new(metadata.clone(), events.clone());
    Ok(Backend { metadata, events, operations: Operations::default(), collector })
}

/// Tells the service manager, if there is one, that clients are served.
fn announce_ready() {
    notify(NotifyState::Ready);
}

/// Sends one message to the service manager. Without one this does nothing.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}
