//! `berth exec`

use berth_proto::berth::v1::ExecOptions;
use berth_proto::berth::v1::stream_request::Message;
use clap::Args;

use super::finish;
use crate::client::Daemon;
use crate::detach::DetachKeys;
use crate::environment::Environment;
use crate::failure::{Failure, Outcome};
use crate::parse::{Words, too_few};
use crate::session::Session;
use crate::terminal;

/// Execute a command in a running container
#[derive(Args, Debug)]
#[command(override_usage = "berth exec [OPTIONS] CONTAINER COMMAND [ARG]...")]
pub(crate) struct Exec {
    /// Start the command and return
    #[arg(short, long)]
    detach: bool,
    /// Key sequence that leaves the command running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    #[command(flatten)]
    environment: Environment,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    tty: bool,
    /// User name or id, and optionally group: <name|uid>[:<group|gid>]
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long)]
    workdir: Option<String>,
    /// The container, by name or id, and the command with its arguments
    #[command(subcommand)]
    words: Words,
}

impl Exec {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let session = Session {
            stdin: self.interactive && !self.detach,
            tty: self.tty,
            // As with Docker, the signals of an exec's client are its own.
            forward_signals: false,
            detach_keys: self.detach_keys.clone().unwrap_or_default(),
        };
        session.check_terminal()?;
        let detach = self.detach;
        let first = Message::Exec(self.into_options()?);
        let mut client = daemon.containers().await?;
        let outcome = session.drive(first, |requests| client.exec(requests)).await;
        outcome.map(finish).map_err(|failure| if detach { failure } else { failure.of_exec() })
    }

    /// The options as the daemon takes them.
    pub(crate) fn into_options(self) -> Outcome<ExecOptions> {
        let (container, command) = self.words.split();
        if command.is_empty() {
            return Err(Failure::new(too_few("berth exec", 2)));
        }
        Ok(ExecOptions {
            container,
            command,
            env: self.environment.variables()?,
            working_directory: self.workdir.unwrap_or_default(),
            user: self.user.unwrap_or_default(),
            tty: self.tty,
            stdin: self.interactive && !self.detach,
            window_size: if self.tty { terminal::window_size() } else { None },
            detach: self.detach,
        })
    }
}
