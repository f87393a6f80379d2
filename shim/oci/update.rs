//! `update`: other limits for a container.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use berth_types::spec::{BlockIo, Cpu, Memory, Pids, Resources};
use berth_types::{Error, Result, ResultExt};

use containerd_shim_berth_v1::container;

use crate::record::{Records, Status};

/// Changes limits.
#[derive(Debug, clap::Args)]
pub(crate) struct Update {
    /// A document of limits, as `linux.resources` has them; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Weight of block devices, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// The period of the processor quota, in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// The processor quota, in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// How much of the quota may be saved up, in microseconds
    #[arg(long)]
    cpu_burst: Option<u64>,
    /// Weight of the processor
    #[arg(long)]
    cpu_share: Option<u64>,
    /// The period of real-time scheduling, in microseconds
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// The real-time quota, in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// Whether it gets only what nobody else wants
    #[arg(long)]
    cpu_idle: Option<i64>,
    /// Which processors
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Which memory nodes
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Memory, in bytes
    #[arg(long, allow_hyphen_values = true)]
    memory: Option<i64>,
    /// Memory that is kept, in bytes
    #[arg(long, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,
    /// Memory and swap, in bytes
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// How many processes
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// The container's id
    id: String,
}

impl Update {
    /// # Errors
    /// NotFound without such a container, FailedPrecondition when it has ended, InvalidArgument
    /// for limits that can't be.
    pub(crate) async fn run(self, records: &Records) -> Result<()> {
        let found = records.claim(&self.id).await?;
        if found.status()? == Status::Stopped {
            return Err(Error::failed_precondition("container not running"));
        }
        let resources = match &self.resources {
            Some(path) => read(path)?,
            None => self.flags(),
        };
        found.remains()?.cgroup().update(&resources)
    }

    /// The limits of the flags.
    fn flags(self) -> Resources {
        Resources {
            cpu: Some(Cpu {
                shares: self.cpu_share,
                quota: self.cpu_quota,
                burst: self.cpu_burst,
                period: self.cpu_period,
                realtime_runtime: self.cpu_rt_runtime,
                realtime_period: self.cpu_rt_period,
                cpus: self.cpuset_cpus,
                mems: self.cpuset_mems,
                idle: self.cpu_idle,
            }),
            memory: Some(Memory {
                limit: self.memory,
                reservation: self.memory_reservation,
                swap: self.memory_swap,
                ..Memory::default()
            }),
            pids: self.pids_limit.map(|limit| Pids { limit: Some(limit) }),
            block_io: self
                .blkio_weight
                .map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
            ..Resources::default()
        }
    }
}

fn read(path: &PathBuf) -> Result<Resources> {
    let what = || format!("read the limits in {}", path.display());
    let mut text = Vec::new();
    match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_end(&mut text).map(drop).context(what)?,
        false => text = fs::read(path).context(what)?,
    }
    container::parse(&text).context(what)
}
