//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::client::Daemon;
use crate::commands as c;
use crate::failure::Outcome;

/// Runs and manages containers.
#[derive(Debug, Parser)]
#[command(name = "berth", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// The daemon's socket
    #[arg(short, long, env = "BERTH_ADDRESS", default_value = "/run/berth/berth.sock")]
    address: PathBuf,
    /// The tenant to work in
    #[arg(short, long, env = "BERTH_NAMESPACE", default_value = "default")]
    namespace: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create and run a new container from an image
    Run(c::run::Run),
    /// Create a new container
    Create(c::create::Create),
    /// Start one or more stopped containers
    Start(c::start::Start),
    /// Attach to a running container
    Attach(c::attach::Attach),
    /// Execute a command in a running container
    Exec(c::exec::Exec),
    /// List containers
    Ps(c::ps::Ps),
    /// Fetch the logs of a container
    Logs(c::logs::Logs),
    /// Stop one or more running containers
    Stop(c::stop::Stop),
    /// Restart one or more containers
    Restart(c::restart::Restart),
    /// Kill one or more running containers
    Kill(c::kill::Kill),
    /// Pause all processes within one or more containers
    Pause(c::pause::Pause),
    /// Let all processes within one or more containers go on
    Unpause(c::unpause::Unpause),
    /// Rename a container
    Rename(c::rename::Rename),
    /// Display the running processes of a container
    Top(c::top::Top),
    /// Block until containers stop, then print their exit codes
    Wait(c::wait::Wait),
    /// Remove one or more containers
    Rm(c::rm::Rm),
    /// Download an image from a registry
    Pull(c::pull::Pull),
    /// Upload an image to a registry
    Push(c::push::Push),
    /// Save one or more images to a tar archive
    Save(c::save::Save),
    /// Load images from a tar archive
    Load(c::load::Load),
    /// List images
    Images(c::images::Images),
    /// Create a tag TARGET that refers to SOURCE
    Tag(c::tag::Tag),
    /// Remove one or more images
    Rmi(c::rmi::Rmi),
    /// Return low-level information on containers and images
    Inspect(c::inspect::Inspect),
    /// Show the versions of client and daemon
    Version(c::version::Version),
    /// Display information on the daemon
    Info(c::info::Info),
    /// Look after what the daemon keeps
    System(c::system::System),
}

impl Cli {
    /// The command alone.
    #[cfg(test)]
    pub(crate) fn into_command(self) -> Command {
        self.command
    }

    /// Carries out the command and answers its exit status.
    pub(crate) async fn run(self) -> Outcome {
        let daemon = Daemon::new(self.address, self.namespace);
        match self.command {
            Command::Run(command) => command.run(&daemon).await,
            Command::Create(command) => command.run(&daemon).await,
            Command::Start(command) => command.run(&daemon).await,
            Command::Attach(command) => command.run(&daemon).await,
            Command::Exec(command) => command.run(&daemon).await,
            Command::Ps(command) => command.run(&daemon).await,
            Command::Logs(command) => command.run(&daemon).await,
            Command::Stop(command) => command.run(&daemon).await,
            Command::Restart(command) => command.run(&daemon).await,
            Command::Kill(command) => command.run(&daemon).await,
            Command::Pause(command) => command.run(&daemon).await,
            Command::Unpause(command) => command.run(&daemon).await,
            Command::Rename(command) => command.run(&daemon).await,
            Command::Top(command) => command.run(&daemon).await,
            Command::Wait(command) => command.run(&daemon).await,
            Command::Rm(command) => command.run(&daemon).await,
            Command::Pull(command) => command.run(&daemon).await,
            Command::Push(command) => command.run(&daemon).await,
            Command::Save(command) => command.run(&daemon).await,
            Command::Load(command) => command.run(&daemon).await,
            Command::Images(command) => command.run(&daemon).await,
            Command::Tag(command) => command.run(&daemon).await,
            Command::Rmi(command) => command.run(&daemon).await,
            Command::Inspect(command) => command.run(&daemon).await,
            Command::Version(command) => command.run(&daemon).await,
            Command::Info(command) => command.run(&daemon).await,
            Command::System(command) => command.run(&daemon).await,
        }
    }
}
