//! The command line: runc's global flags, and a command.

use std::fs::OpenOptions;
use std::path::PathBuf;

use berth_types::{Error, Kind, Result, ResultExt};
use clap::{Parser, Subcommand, ValueEnum};
use containerd_shim_berth_v1::log::{Format, Log};

use crate::create::Create;
use crate::record::Records;
use crate::run::Run;
use crate::{
    delete, events, exec, features, kill, list, pause, ps, resume, seal, spec, start, state,
    streams, update,
};

/// What `--version` prints after the program's name, in lines that Docker's daemon reads.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// Runs containers from bundles, as the OCI runtime specification has it.
#[derive(Debug, Parser)]
#[command(name = "berth-oci", version = VERSION, subcommand_required = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags before the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Where the state of containers is kept
    #[arg(long, default_value = "/run/berth-oci", value_name = "DIR")]
    root: PathBuf,
    /// Log to this file and not to standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// How to log
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
    /// Log more
    #[arg(long)]
    debug: bool,
    /// Not offered: control groups are made by their paths
    #[arg(long)]
    systemd_cgroup: bool,
    /// Not offered: containers are made by root
    #[arg(long, default_value = "auto", value_name = "true|false|auto")]
    rootless: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Global {
    /// Logs as the flags say.
    pub(crate) fn start_log(&self) -> Result<()> {
        let open = |path: &PathBuf| {
            let file = OpenOptions::new().append(true).create(true).open(path);
            file.context(|| format!("open the log {}", path.display()))
        };
        let format = match self.log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        let file = self.log.as_ref().map(open).transpose()?;
        Log { debug: self.debug, format, file }.start();
        Ok(())
    }

    /// The containers below the root directory.
    ///
    /// # Errors
    /// Unimplemented when a flag asks for what is not offered.
    pub(crate) fn records(&self) -> Result<Records> {
        if self.systemd_cgroup {
            return Err(Error::unimplemented(
                "--systemd-cgroup: there is no systemd driver; give linux.cgroupsPath as a path \
                 and leave the flag out",
            ));
        }
        if matches!(self.rootless.as_str(), "true" | "1") {
            return Err(Error::unimplemented("--rootless: containers are made by root only"));
        }
        let here = || std::env::current_dir().context(|| "find the working directory");
        let root = match self.root.is_absolute() {
            true => self.root.clone(),
            false => here()?.join(&self.root),
        };
        Ok(Records::new(root))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a container whose process waits to be started
    Create(Create),
    /// Start the process of a created container
    Start(start::Start),
    /// Print the state of a container
    State(state::State),
    /// Send a signal to a container
    Kill(kill::Kill),
    /// Delete a stopped container
    Delete(delete::Delete),
    /// Run a further process in a container
    Exec(exec::Exec),
    /// Create a container, start it, and wait for its end
    Run(Run),
    /// List containers
    List(list::List),
    /// List the processes of a container
    Ps(ps::Ps),
    /// Stop all processes of a container for a while
    Pause(pause::Pause),
    /// Let the processes of a paused container go on
    Resume(resume::Resume),
    /// Change the limits of a container
    Update(update::Update),
    /// Print figures of a container, and when it runs out of memory
    Events(events::Events),
    /// Write a specification to start from
    Spec(spec::Spec),
    /// Print what this runtime can do
    Features(features::Features),
}

impl Verb {
    /// Checks that the caller has the descriptors open that a process is to keep.
    pub(crate) fn check_descriptors(&self) -> Result<()> {
        match self {
            Self::Create(Create { birth }) | Self::Run(Run { birth, .. }) => {
                streams::check_preserved(birth.preserve_fds)
            }
            Self::Exec(exec) => streams::check_preserved(exec.preserve_fds),
            _ => Ok(()),
        }
    }

    /// Gets this program ready for what it is to do.
    pub(crate) fn prepare(&self) -> Result<()> {
        if matches!(self, Self::Spec(_) | Self::Features(_)) {
            return Ok(());
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Error::new(Kind::PermissionDenied, "containers are for root only"));
        }
        match self {
            Self::Create(_) | Self::Run(_) | Self::Exec(_) => seal::seal(),
            _ => Ok(()),
        }
    }

    /// The status to exit with when the command fails.
    pub(crate) fn failure(&self) -> u8 {
        // So that it is not taken for the status of a process.
        if matches!(self, Self::Exec(_)) { 255 } else { 1 }
    }

    /// Does what the command says; the status to exit with.
    pub(crate) async fn run(self, global: &Global) -> Result<u8> {
        match self {
            Self::Create(create) => create.run(&global.records()?).await?,
            Self::Start(start) => start.run(&global.records()?).await?,
            Self::State(state) => state.run(&global.records()?)?,
            Self::Kill(kill) => kill.run(&global.records()?).await?,
            Self::Delete(delete) => delete.run(&global.records()?).await?,
            Self::Exec(exec) => return exec.run(&global.records()?).await,
            Self::Run(run) => return run.run(&global.records()?).await,
            Self::List(list) => list.run(&global.records()?)?,
            Self::Ps(ps) => ps.run(&global.records()?)?,
            Self::Pause(pause) => pause.run(&global.records()?).await?,
            Self::Resume(resume) => resume.run(&global.records()?).await?,
            Self::Update(update) => update.run(&global.records()?).await?,
            Self::Events(events) => events.run(&global.records()?).await?,
            Self::Spec(spec) => spec.run()?,
            Self::Features(features) => features.run()?,
        }
        Ok(0)
    }
}
