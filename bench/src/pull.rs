//! Pull and unpack of a large image from a registry on loopback.

use anyhow::Result;

use crate::Bench;
use crate::layers;
use crate::limit::{self, Source};
use crate::peer::Peer;
use crate::samples::{Samples, time};
use crate::table::{Better, Table};

/// The image's name in the registry.
const NAME: &str = "large";

/// The label of a namespace that says how layers are kept, and the other way to keep them.
const DIRECTORIES: &str = "containerd.io/defaults/snapshotter=overlayfs";

/// Each engine and the limit in turn, on a disk with nothing left to write.
pub(crate) fn measure(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    let mebibytes = bench.arguments.image_size;
    let image = layers::large(NAME, mebibytes);
    bench.registry.push(&image);
    let layers: Vec<_> =
        image.layers().iter().map(|layer| berth_types::Digest::of(layer.blob())).collect();
    drop(image);
    let host = bench.registry.host();
    let source = Source { host: &host, name: NAME, layers: &layers };
    let reference = bench.registry.reference(&format!("{NAME}:latest"));

    let mut figures = Figures::new(peers.len());
    let mut limits = Samples::default();
    for _ in 0..bench.arguments.pulls {
        limits.add(take_limit(&source)?);
        for (number, peer) in peers.iter().enumerate() {
            figures.take(number, peer, &reference)?;
        }
    }
    let name = format!("pull and unpack, {mebibytes} MiB in {} layers", layers.len());
    table.add(&name, "s", Better::Less, &figures.pulls, Some(&limits));
    table.add("its first `run --rm IMAGE true`", "ms", Better::Less, &figures.runs, None);
    table.add("its removal", "ms", Better::Less, &figures.removals, None);
    measure_directories(bench, peers, table, &reference)
}

/// berth once more, with layers as directories.
fn measure_directories(
    bench: &Bench,
    peers: &[Peer],
    table: &mut Table,
    reference: &str,
) -> Result<()> {
    let Some((number, peer)) = peers.iter().enumerate().find(|(_, peer)| peer.name() == "berth")
    else {
        return Ok(());
    };
    let Some(engine) = peer.for_ctr() else { return Ok(()) };
    engine.ctr(&["namespaces", "label", engine.namespace(), DIRECTORIES]).success();
    let mut figures = Figures::new(peers.len());
    for _ in 0..bench.arguments.pulls {
        figures.take(number, peer, reference)?;
    }
    let (label, _) = DIRECTORIES.split_once('=').unwrap_or_default();
    engine.ctr(&["namespaces", "label", engine.namespace(), &format!("{label}=")]).success();
    let rows = [(&figures.pulls, "s"), (&figures.runs, "ms"), (&figures.removals, "ms")];
    for ((samples, unit), what) in rows.into_iter().zip(["pull", "first run", "removal"]) {
        let name = format!("{what}, layers as directories");
        table.add(&name, unit, Better::Less, samples, None);
    }
    Ok(())
}

/// What an image's life takes, for each engine.
struct Figures {
    pulls: Vec<Samples>,
    runs: Vec<Samples>,
    removals: Vec<Samples>,
}

impl Figures {
    fn new(peers: usize) -> Self {
        let none = || vec![Samples::default(); peers];
        Self { pulls: none(), runs: none(), removals: none() }
    }

    fn take(&mut self, number: usize, peer: &Peer, reference: &str) -> Result<()> {
        rustix::fs::sync();
        self.pulls[number].add(time(|| peer.pull(reference))? / 1e3);
        self.runs[number].add(time(|| peer.run(reference, "first-of-large"))?);
        self.removals[number].add(time(|| peer.remove_image(reference))?);
        Ok(())
    }
}

fn take_limit(source: &Source<'_>) -> Result<f64> {
    let directory = tempfile::Builder::new().prefix("bl").tempdir_in("/tmp")?;
    rustix::fs::sync();
    Ok(time(|| limit::pull(source, directory.path()))? / 1e3)
}
