//! `spec`: a specification to start from.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use berth_types::spec;
use berth_types::{Error, Result, ResultExt};

/// Writes `config.json`.
#[derive(Debug, clap::Args)]
pub(crate) struct Spec {
    /// The directory of the bundle; by default the working directory
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    bundle: PathBuf,
    /// Not offered: containers are made by root
    #[arg(long)]
    rootless: bool,
}

impl Spec {
    /// # Errors
    /// AlreadyExists when there is such a file.
    pub(crate) fn run(self) -> Result<()> {
        if self.rootless {
            return Err(Error::unimplemented("--rootless: containers are made by root only"));
        }
        let path = self.bundle.join("config.json");
        let text = serde_json::to_string_pretty(&document()).unwrap_or_default();
        let mut file = File::create_new(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::already_exists(format!("file {} exists. Remove it first", path.display()))
            }
            _ => Error::io(format!("make {}", path.display()), &error),
        })?;
        writeln!(file, "{text}").context(|| format!("write {}", path.display()))
    }
}

/// A shell at a terminal, in a root filesystem that can't be written.
fn document() -> spec::Spec {
    let mut spec = spec::Spec::container("");
    if let Some(process) = &mut spec.process {
        process.terminal = true;
        process.args = vec!["sh".to_owned()];
        process.env =
            ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]
                .map(str::to_owned)
                .to_vec();
        process.no_new_privileges = true;
    }
    if let Some(root) = &mut spec.root {
        root.readonly = true;
    }
    spec.hostname = Some("berth".to_owned());
    spec
}
