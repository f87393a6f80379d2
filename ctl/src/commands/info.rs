//! `berth info`

use berth_proto::berth::v1::{InfoRequest, InfoResponse};
use clap::Args;
use serde_json::json;

use crate::client::Daemon;
use crate::failure::Outcome;
use crate::human;
use crate::table::{self, Format};

/// Display information on the daemon
#[derive(Args, Debug)]
pub(crate) struct Info {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Info {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let info = daemon.system().await?.info(InfoRequest {}).await?.into_inner();
        match self.format {
            Format::Json => table::print_json([object(&info)]),
            Format::Table => print(daemon, &info),
        }
        Ok(0)
    }
}

fn print(daemon: &Daemon, info: &InfoResponse) {
    let containers = info.containers_running + info.containers_paused + info.containers_stopped;
    println!("Server:");
    println!(" Containers: {containers}");
    println!("  Running: {}", info.containers_running);
    println!("  Paused: {}", info.containers_paused);
    println!("  Stopped: {}", info.containers_stopped);
    println!(" Images: {}", info.images);
    println!(" Server Version: {}", info.version);
    println!(" Address: {}", daemon.address().display());
    println!(" Storage Driver: {}", info.snapshotter);
    println!(" Cgroup Version: {}", info.cgroup);
    println!(" Default Runtime: {}", info.default_runtime);
    println!(" Kernel Version: {}", info.kernel);
    println!(" Operating System: {}", info.operating_system);
    println!(" Architecture: {}", info.architecture);
    println!(" CPUs: {}", info.processors);
    println!(" Total Memory: {}", human::binary_size(info.memory));
    println!(" Berth Root Dir: {}", info.root);
    println!(" Berth State Dir: {}", info.state);
}

/// Docker's field names where the thing is the same.
fn object(info: &InfoResponse) -> serde_json::Value {
    json!({
        "Containers": info.containers_running + info.containers_paused + info.containers_stopped,
        "ContainersRunning": info.containers_running,
        "ContainersPaused": info.containers_paused,
        "ContainersStopped": info.containers_stopped,
        "Images": info.images,
        "ServerVersion": info.version,
        "Driver": info.snapshotter,
        "CgroupVersion": info.cgroup,
        "DefaultRuntime": info.default_runtime,
        "KernelVersion": info.kernel,
        "OperatingSystem": info.operating_system,
        "Architecture": info.architecture,
        "NCPU": info.processors,
        "MemTotal": info.memory,
        "RootDir": info.root,
        "StateDir": info.state,
    })
}
