//! The command line, with containerd's flags.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use berth_types::Result;

use crate::config::{self, Config, Level};

/// The berth daemon: runs containers for clients of containerd's API and of berth's own.
#[derive(Debug, Parser)]
#[command(name = "berthd", version)]
pub(crate) struct Args {
    /// Socket to serve on [default: /run/berth/berth.sock].
    #[arg(short, long, global = true)]
    address: Option<PathBuf>,
    /// Directory of what is kept [default: /var/lib/berth].
    #[arg(long, global = true)]
    root: Option<PathBuf>,
    /// Directory of what a reboot ends [default: /run/berth].
    #[arg(long, global = true)]
    state: Option<PathBuf>,
    /// Configuration file, which flags override [default: /etc/berth/config.toml, if it is there].
    #[arg(short, long, global = true)]
    config: Option<PathBuf>,
    /// How much to log.
    #[arg(short, long, global = true, value_enum)]
    log_level: Option<Level>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// Which configuration to show.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Prints the built-in configuration.
    Default,
    /// Prints the configuration in force: built-in, then file, then flags.
    Dump,
    /// Prints the same in the newest layout, to be the file from now on.
    Migrate,
}

impl Args {
    /// The configuration in force, and the keys of the file that mean nothing to berth.
    ///
    /// # Errors
    /// When the file is malformed, or is named by `--config` and missing.
    pub(crate) fn load(&self) -> Result<(Config, Vec<String>)> {
        let (mut config, unknown) = match &self.config {
            Some(path) => config::load(path)?,
            None => config::load_if_there(Path::new(config::DEFAULT_PATH))?,
        };
        if let Some(root) = &self.root {
            config.root = absolute(root)?;
        }
        if let Some(state) = &self.state {
            config.state = absolute(state)?;
        }
        if let Some(address) = &self.address {
            config.grpc.address = absolute(address)?;
        }
        if let Some(level) = self.log_level {
            config.debug.level = level;
        }
        Ok((config, unknown))
    }
}

/// Resolves a path of the command line against the working directory, because shims and mounts
/// are started elsewhere.
fn absolute(path: &Path) -> Result<PathBuf> {
    use berth_types::ResultExt;
    std::path::absolute(path).context(|| format!("resolve {}", path.display()))
}
