//! `berth version`

use clap::Args;
use serde_json::json;

use crate::client::Daemon;
use crate::failure::Outcome;
use crate::output::say;
use crate::table::{self, Format};

/// Show the versions of client and daemon
#[derive(Args, Debug)]
pub(crate) struct Version {
    /// How to print them: table, json, or a template of Go's
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

impl Version {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let client = env!("CARGO_PKG_VERSION");
        let platform = format!("linux/{}", architecture());
        if self.format == Format::Table {
            say(format_args!("Client:\n Version:   {client}\n OS/Arch:   {platform}\n"));
        }
        let info = daemon.system().await?.info(berth_proto::berth::v1::InfoRequest {}).await?;
        let info = info.into_inner();
        let containerd = daemon.version().await?.version(()).await?.into_inner().version;
        let object = json!({
            "Client": { "Version": client, "Os": "linux", "Arch": architecture() },
            "Server": { "Version": info.version, "Os": "linux", "Arch": info.architecture,
                        "KernelVersion": info.kernel, "ContainerdApi": containerd },
        });
        match self.format {
            Format::Json => table::print_json([object]),
            Format::Template(text) | Format::Columns(text) => table::print_each(&text, &[object])?,
            Format::Table => say(format_args!(
                "Server:\n Version:   {}\n OS/Arch:   linux/{}\n Kernel:    {}\n API:       \
                 containerd {containerd}",
                info.version, info.architecture, info.kernel
            )),
        }
        Ok(0)
    }
}

/// This machine's architecture in the words of OCI platforms.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
