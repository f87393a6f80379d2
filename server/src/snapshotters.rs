//! Which snapshotters there are, and which one is used by who names none.

use std::sync::Arc;

use berth_snapshotter::{Erofs, Native, Overlay, Remote, Snapshotter, probe_erofs};
use berth_store::Store;
use berth_types::{Error, Result};

use crate::config::{Config, ProxyKind};

/// Opens all snapshotters, the one of who names none first.
///
/// # Errors
/// Those of the disk and of the database; `InvalidArgument` when the configuration names a
/// snapshotter that is not there, or one twice.
pub(crate) fn open(config: &Config, store: &Store) -> Result<Vec<Arc<dyn Snapshotter>>> {
    let at = |name: &str| config.root.join("snapshots").join(name);
    let mut all: Vec<Arc<dyn Snapshotter>> = Vec::new();
    match probe_erofs(&config.root) {
        Ok(()) if config.plugins.erofs.enable_fsverity => {
            all.push(Arc::new(Erofs::with_verity(&at("erofs"), store.clone())?));
        }
        Ok(()) => all.push(Arc::new(Erofs::open(&at("erofs"), store.clone())?)),
        Err(error) => tracing::warn!(%error, "the snapshotter erofs is not offered"),
    }
    all.push(Arc::new(Overlay::open(&at("overlayfs"), store.clone())?));
    all.push(Arc::new(Native::open(&at("native"), store.clone())?));
    for (name, proxy) in &config.proxy_plugins {
        if all.iter().any(|known| known.name() == name) {
            return Err(Error::invalid_argument(format!(
                "snapshotter {name} is built in: give the proxy plugin another name"
            )));
        }
        match proxy.kind {
            ProxyKind::Snapshot => all.push(Arc::new(Remote::new(name, &proxy.address))),
            ProxyKind::Diff | ProxyKind::Content | ProxyKind::Sandbox => {}
        }
    }
    choose(&config.snapshotter, all)
}

/// Puts the snapshotter `name` first; nothing is changed for an empty name.
fn choose(name: &str, mut all: Vec<Arc<dyn Snapshotter>>) -> Result<Vec<Arc<dyn Snapshotter>>> {
    if name.is_empty() {
        return Ok(all);
    }
    let known: Vec<_> = all.iter().map(|known| known.name()).collect();
    let at = known.iter().position(|known| *known == name).ok_or_else(|| {
        Error::invalid_argument(format!(
            "snapshotter = {name:?} is not there: choose one of {}",
            known.join(", ")
        ))
    })?;
    all.swap(0, at);
    Ok(all)
}
