//! Pull and unpack of images from a registry on loopback.

mod debian;
mod directories;
mod limit;
mod readers;

use std::fs;

use anyhow::Result;
use berth_tests::{Image, Layer};
use berth_types::Digest;

use self::limit::Source;
use crate::Bench;
use crate::layers;
use crate::peer::Peer;
use crate::samples::{Samples, time};
use crate::table::{Better, Table};
use crate::usage::Meter;

pub(crate) use self::directories::measure as measure_directories;
pub(crate) use self::readers::measure as measure_readers;

/// What the page cache has of registry, engines and disk before a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    /// What is left from the round before.
    Warm,
    /// Nothing.
    Cold,
}

/// An image in the registry.
struct Subject {
    /// What it is called in the table.
    title: String,
    reference: String,
    source: Source,
}

impl Subject {
    /// Pushes the image. `inflate` is the program that decompresses its layers.
    fn push(bench: &Bench, title: String, image: &Image, inflate: &'static str) -> Self {
        bench.registry.push(image);
        let digest = |layer: &Layer| Digest::of(layer.blob());
        let layers = image.layers().iter().map(digest).collect();
        let name = image.name().to_owned();
        let reference = bench.registry.reference(&format!("{name}:latest"));
        Self {
            title,
            reference,
            source: Source { host: bench.registry.host(), name, layers, inflate },
        }
    }

    /// The large image, its layers compressed by gzip.
    fn large(bench: &Bench) -> Self {
        let mebibytes = bench.arguments.image_size;
        let image = layers::large("large", mebibytes);
        let title = format!("{mebibytes} MiB in {} layers", image.layers().len());
        Self::push(bench, title, &image, "gunzip")
    }
}

/// The large image, its layers compressed by gzip.
pub(crate) fn measure_gzip(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    measure(bench, peers, table, &Subject::large(bench))
}

/// The large image, its layers compressed by zstd.
pub(crate) fn measure_zstd(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    let mebibytes = bench.arguments.image_size;
    let image = layers::large("large-zstd", mebibytes).map_layers(Layer::zstd);
    let title = format!("{mebibytes} MiB in {} layers, zstd", image.layers().len());
    measure(bench, peers, table, &Subject::push(bench, title, &image, "zstd"))
}

/// A Debian system in three layers, compressed by gzip and by zstd.
pub(crate) fn measure_debian(bench: &Bench, peers: &mut [Peer], table: &mut Table) -> Result<()> {
    let layers: Vec<_> = debian::make_layers()?.into_iter().map(Layer::of_tar).collect();
    let image = debian::image("debian", layers);
    let mebibytes = image.size() >> 20;
    let title = format!("Debian, {mebibytes} MiB in {} layers", image.layers().len());
    let zstd = image.clone().named("debian-zstd").map_layers(Layer::zstd);
    measure(bench, peers, table, &Subject::push(bench, title.clone(), &image, "gunzip"))?;
    let subject = Subject::push(bench, format!("{title}, zstd"), &zstd, "zstd");
    measure(bench, peers, table, &subject)
}

/// Each engine and the limit in turn, on a disk with nothing left to write.
fn measure(bench: &Bench, peers: &[Peer], table: &mut Table, subject: &Subject) -> Result<()> {
    for cache in [Cache::Warm, Cache::Cold] {
        let mut figures = Figures::new(peers.len());
        let mut limits = Samples::default();
        for _ in 0..bench.arguments.pulls {
            limits.add(take_limit(&subject.source, cache)?);
            for (number, peer) in peers.iter().enumerate() {
                if let Err(error) = figures.take(number, peer, &subject.reference, cache) {
                    eprintln!("{} does not pull {}: {error:#}", peer.name(), subject.title);
                }
            }
        }
        let title = match cache {
            Cache::Warm => subject.title.clone(),
            Cache::Cold => format!("{}, nothing cached", subject.title),
        };
        figures.add_to(table, &title, Some(&limits));
    }
    Ok(())
}

/// What an image's life takes, for each engine.
struct Figures {
    pulls: Vec<Samples>,
    processor: Vec<Samples>,
    written: Vec<Samples>,
    memory: Vec<Samples>,
    runs: Vec<Samples>,
    removals: Vec<Samples>,
}

impl Figures {
    fn new(peers: usize) -> Self {
        let none = || vec![Samples::default(); peers];
        Self {
            pulls: none(),
            processor: none(),
            written: none(),
            memory: none(),
            runs: none(),
            removals: none(),
        }
    }

    fn take(&mut self, number: usize, peer: &Peer, reference: &str, cache: Cache) -> Result<()> {
        prepare(cache)?;
        let meter = Meter::start(peer.daemon_pids())?;
        let pull = time(|| peer.pull(reference))? / 1e3;
        let usage = meter.stop()?;
        self.pulls[number].add(pull);
        self.processor[number].add(usage.processor);
        self.written[number].add(usage.written);
        self.memory[number].add(usage.memory);
        self.runs[number].add(time(|| peer.run(reference, "first-of-image", &["true"]))?);
        self.removals[number].add(time(|| peer.remove_image(reference))?);
        Ok(())
    }

    fn add_to(&self, table: &mut Table, title: &str, limits: Option<&Samples>) {
        table.add(&format!("pull and unpack, {title}"), "s", Better::Less, &self.pulls, limits);
        for (what, unit, samples) in [
            ("its processor time", "s", &self.processor),
            ("its bytes on the disk", "MiB", &self.written),
            ("the daemon's memory at most", "MiB", &self.memory),
            ("the first `run --rm IMAGE true`", "ms", &self.runs),
            ("the removal", "ms", &self.removals),
        ] {
            table.add(what, unit, Better::Less, samples, None);
        }
    }
}

fn take_limit(source: &Source, cache: Cache) -> Result<f64> {
    let directory = tempfile::Builder::new().prefix("bl").tempdir_in("/tmp")?;
    prepare(cache)?;
    Ok(time(|| limit::pull(source, directory.path()))? / 1e3)
}

/// Leaves nothing to be written, and nothing in the page cache where that is the case.
fn prepare(cache: Cache) -> Result<()> {
    rustix::fs::sync();
    if cache == Cache::Cold {
        // Pages, inodes and directory entries: proc_sys_vm(5).
        fs::write("/proc/sys/vm/drop_caches", "3")?;
    }
    Ok(())
}
