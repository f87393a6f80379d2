//! `berth run`

use berth_proto::berth::v1::stream_request::Message;
use berth_proto::berth::v1::{ContainerOptions, CreateRequest};
use clap::Args;

use super::finish;
use super::missing::with_image;
use crate::client::Daemon;
use crate::detach::DetachKeys;
use crate::failure::Outcome;
use crate::options::MakeOptions;
use crate::output::say;
use crate::session::Session;

/// Create and run a new container from an image
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    override_usage = "berth run [OPTIONS] IMAGE [COMMAND] [ARG]..."
)]
pub(crate) struct Run {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Key sequence that leaves the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    #[command(flatten)]
    make: MakeOptions,
}

impl Run {
    /// What the daemon is asked for.
    #[cfg(test)]
    pub(crate) fn into_message(self) -> Outcome<ContainerOptions> {
        self.make.into_message()
    }

    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let session = Session {
            stdin: self.make.interactive && !self.detach,
            tty: self.make.tty,
            forward_signals: true,
            detach_keys: self.detach_keys.unwrap_or_default(),
        };
        let outcome = async {
            session.check_terminal()?;
            let options = self.make.into_message()?;
            if self.detach {
                in_background(daemon, options).await
            } else {
                in_foreground(daemon, options, &session).await
            }
        };
        outcome.await.map_err(|failure| failure.of_start("run"))
    }
}

async fn in_background(daemon: &Daemon, options: ContainerOptions) -> Outcome {
    let created = with_image(daemon, options, async |options| {
        let request = CreateRequest { options: Some(options), start: true };
        Ok(daemon.containers().await?.create(request).await?.into_inner())
    });
    say(&created.await?.id);
    Ok(0)
}

async fn in_foreground(daemon: &Daemon, options: ContainerOptions, session: &Session) -> Outcome {
    let ended = with_image(daemon, options, async |options| {
        let mut containers = daemon.containers().await?;
        let first = Message::Run(options);
        session.drive(first, |requests| containers.run(requests)).await
    });
    ended.await.map(finish)
}
