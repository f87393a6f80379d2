//! `berth info`

use berth_proto::berth::v1::{InfoRequest, InfoResponse};
use clap::Args;
use serde_json::json;

use crate::client::Daemon;
use crate::failure::Outcome;
use crate::human;
use crate::output::say;
use crate::table::{self, Format};

/// Display information on the daemon
#[derive(Args, Debug)]
pub(crate) struct Info {
    /// How to print it: table, json, or a template of Go's
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

impl Info {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let info = daemon.system().await?.info(InfoRequest {}).await?.into_inner();
        match self.format {
            Format::Table => print(daemon, &info),
            Format::Json => table::print_json([object(&info)]),
            Format::Template(text) | Format::Columns(text) => {
                table::print_each(&text, &[object(&info)])?;
            }
        }
        Ok(0)
    }
}

fn print(daemon: &Daemon, info: &InfoResponse) {
    let containers = info.containers_running + info.containers_paused + info.containers_stopped;
    say("Server:");
    say(format_args!(" Containers: {containers}"));
    say(format_args!("  Running: {}", info.containers_running));
    say(format_args!("  Paused: {}", info.containers_paused));
    say(format_args!("  Stopped: {}", info.containers_stopped));
    say(format_args!(" Images: {}", info.images));
    say(format_args!(" Server Version: {}", info.version));
    say(format_args!(" Address: {}", daemon.address().display()));
    say(format_args!(" Storage Driver: {}", info.snapshotter));
    say(format_args!(" Cgroup Version: {}", info.cgroup));
    say(format_args!(" Default Runtime: {}", info.default_runtime));
    say(format_args!(" Kernel Version: {}", info.kernel));
    say(format_args!(" Operating System: {}", info.operating_system));
    say(format_args!(" Architecture: {}", info.architecture));
    say(format_args!(" CPUs: {}", info.processors));
    say(format_args!(" Total Memory: {}", human::binary_size(info.memory)));
    say(format_args!(" Berth Root Dir: {}", info.root));
    say(format_args!(" Berth State Dir: {}", info.state));
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
