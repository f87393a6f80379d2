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

    let mut figures = vec![Samples::default(); peers.len()];
    let mut limits = Samples::default();
    for _ in 0..bench.arguments.pulls {
        limits.add(take_limit(&source)?);
        for (peer, samples) in peers.iter().zip(&mut figures) {
            rustix::fs::sync();
            samples.add(time(|| peer.pull(&reference))? / 1e3);
            peer.remove_image(&reference)?;
        }
    }
    let name = format!("pull and unpack, {mebibytes} MiB in {} layers", layers.len());
    table.add(&name, "s", Better::Less, &figures, Some(&limits));
    Ok(())
}

fn take_limit(source: &Source<'_>) -> Result<f64> {
    let directory = tempfile::Builder::new().prefix("bl").tempdir_in("/tmp")?;
    rustix::fs::sync();
    Ok(time(|| limit::pull(source, directory.path()))? / 1e3)
}
