//! berth with layers as directories, as the other engines have them.

use anyhow::Result;
use berth_tests::Engine;

use super::{Cache, Figures, Subject};
use crate::Bench;
use crate::peer::Peer;
use crate::table::Table;

/// The label of a namespace that says how layers are kept.
const LABEL: &str = "containerd.io/defaults/snapshotter";

/// berth alone, with the large image.
pub(crate) fn measure(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    let subject = Subject::large(bench);
    let mut figures = Figures::new(peers.len());
    for (number, peer) in peers.iter().enumerate() {
        let Some(engine) = berth(peer) else { continue };
        within(engine, || {
            (0..bench.arguments.pulls)
                .try_for_each(|_| figures.take(number, peer, &subject.reference, Cache::Warm))
        })?;
    }
    figures.add_to(table, &format!("{}, as directories", subject.title), None);
    Ok(())
}

/// The engine, if it is berth's.
pub(super) fn berth(peer: &Peer) -> Option<&Engine> {
    peer.for_ctr().filter(|_| peer.name() == "berth")
}

/// What `action` pulls is kept as directories.
pub(super) fn within<T>(engine: &Engine, action: impl FnOnce() -> T) -> T {
    let label = |value: &str| {
        let words = ["namespaces", "label", engine.namespace(), &format!("{LABEL}={value}")];
        engine.ctr(&words).success();
    };
    label("overlayfs");
    let outcome = action();
    label("");
    outcome
}
