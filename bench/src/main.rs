//! Benchmarks of berth beside what is installed: containerd with runc, and Docker.
//!
//! One command that installs nothing: `cargo run --release -p berth-bench`, as root. It needs
//! Debian's docker-registry and busybox-static. Engines take turns within each measure, so that a
//! machine whose speed drifts is fair to all; figures are medians with the least and the most
//! behind them.

mod api;
mod build;
mod churn;
mod client;
mod crowd;
mod docker;
mod exec;
mod floor;
mod layers;
mod machine;
mod peer;
mod pull;
mod runtime;
mod samples;
mod start;
mod table;
mod task;
mod tool;
mod usage;

use std::path::PathBuf;

use anyhow::Result;
use berth_tests::Registry;
use clap::Parser;

use crate::peer::Peer;
use crate::table::Table;

/// Measures berth beside containerd and Docker
#[derive(Debug, Parser)]
struct Arguments {
    /// Only measures whose name contains this
    #[arg(default_value = "")]
    filter: String,
    /// Only engines whose name contains this
    #[arg(long, default_value = "")]
    engine: String,
    /// Counted runs of each short measure
    #[arg(short = 'n', long, default_value_t = 20)]
    runs: usize,
    /// Counted runs of the pull
    #[arg(long, default_value_t = 3)]
    pulls: usize,
    /// Containers whose memory is measured
    #[arg(long, default_value_t = 100)]
    containers: usize,
    /// Containers that are listed, and found again by a daemon that was killed
    #[arg(long, default_value_t = 1000)]
    many: usize,
    /// Blobs that are collected at once
    #[arg(long, default_value_t = 100_000)]
    blobs: usize,
    /// Size in MiB of the image that is pulled
    #[arg(long, default_value_t = 1024)]
    image_size: usize,
    /// Do the kernel's part of a container's life for each line of standard input
    #[arg(long, hide = true)]
    floor_in: Option<PathBuf>,
}

/// What all measures share.
struct Bench {
    arguments: Arguments,
    registry: Registry,
    /// The name of the small image that containers are made of.
    image: String,
}

/// A measure: its name, and what takes it.
type Measure = (&'static str, fn(&Bench, &mut [Peer], &mut Table) -> Result<()>);

/// Memory first: a daemon keeps some of what a busy hour took.
const MEASURES: [Measure; 13] = [
    ("memory", crowd::measure_memory),
    ("start", start::measure),
    ("task", task::measure),
    ("exec", exec::measure),
    ("runtime", runtime::measure),
    ("churn", churn::measure),
    ("pull gzip", pull::measure_gzip),
    ("pull zstd", pull::measure_zstd),
    ("pull debian", pull::measure_debian),
    ("pull directories", pull::measure_directories),
    ("readers", pull::measure_readers),
    ("many", crowd::measure_many),
    ("api", api::measure),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(directory) = &arguments.floor_in {
        return floor::serve(directory);
    }
    build::binaries()?;
    let registry = Registry::start();
    registry.push(&layers::small("busybox"));
    let image = registry.reference("busybox:latest");
    let bench = Bench { arguments, registry, image };
    let mut peers = Peer::find_all(&bench);
    machine::print()?;
    let mut table = Table::new(&peers);
    for (name, measure) in MEASURES {
        if name.contains(&bench.arguments.filter) {
            eprintln!("measuring {name} …");
            measure(&bench, &mut peers, &mut table)?;
        }
    }
    table.print();
    println!("\n{}", machine::load()?);
    Ok(())
}
