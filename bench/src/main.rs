//! Benchmarks of berth beside what is installed: containerd with runc, and Docker.
//!
//! One command that installs nothing: `cargo run --release -p berth-bench`, as root, after
//! `cargo build --release`. Engines take turns within each measure, so that a machine whose speed
//! drifts is fair to all; figures are medians with the least and the most behind them.

mod churn;
mod exec;
mod floor;
mod memory;
mod peer;
mod pull;
mod samples;
mod start;
mod table;
mod task;

use anyhow::Result;
use clap::Parser;

use crate::peer::Peer;
use crate::table::Table;

/// The image that containers are made of.
const IMAGE: &str = "docker.io/library/busybox:latest";

/// Measures berth beside containerd and Docker
#[derive(Debug, Parser)]
struct Arguments {
    /// Only measures whose name contains this
    #[arg(default_value = "")]
    filter: String,
    /// Counted runs of each short measure
    #[arg(short = 'n', long, default_value_t = 20)]
    runs: usize,
    /// Containers for the memory measure
    #[arg(long, default_value_t = 100)]
    containers: usize,
    /// Size in MiB of the image that is pulled
    #[arg(long, default_value_t = 1024)]
    image_size: usize,
}

/// A measure: its name, and what takes it.
type Measure = (&'static str, fn(&Arguments, &[Peer], &mut Table) -> Result<()>);

const MEASURES: [Measure; 6] = [
    ("start", start::measure),
    ("task", task::measure),
    ("exec", exec::measure),
    ("churn", churn::measure),
    ("memory", memory::measure),
    ("pull", pull::measure),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let peers = Peer::find_all()?;
    let mut table = Table::new(&peers);
    for (name, measure) in MEASURES {
        if name.contains(&arguments.filter) {
            eprintln!("measuring {name} …");
            measure(&arguments, &peers, &mut table)?;
        }
    }
    table.print();
    Ok(())
}
