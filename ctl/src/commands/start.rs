//! `berth start`

use berth_proto::berth::v1::stream_request::Message;
use berth_proto::berth::v1::{AttachOptions, InspectRequest, StartRequest};
use clap::Args;

use super::{finish, for_each, missing};
use crate::client::Daemon;
use crate::detach::DetachKeys;
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::terminal;

/// Start one or more stopped containers
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// Attach to the container's output and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Attach to the container's input
    #[arg(short, long)]
    interactive: bool,
    /// Key sequence that leaves the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Start {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        if self.attach || self.interactive {
            return self.attached(daemon).await;
        }
        let client = daemon.containers().await?;
        for_each(self.containers, |container| {
            let mut client = client.clone();
            async move {
                client.start(StartRequest { container: container.clone() }).await?;
                Ok(container)
            }
        })
        .await
    }

    async fn attached(mut self, daemon: &Daemon) -> Outcome {
        let container = self.containers.swap_remove(0);
        if !self.containers.is_empty() {
            return Err(Failure::new("you cannot start and attach multiple containers at once"));
        }
        let mut client = daemon.containers().await?;
        let inspected =
            client.inspect(InspectRequest { container: container.clone() }).await?.into_inner();
        let options = inspected.options.ok_or_else(|| missing("container options"))?;
        let session = Session {
            stdin: self.interactive && options.stdin,
            tty: options.tty,
            forward_signals: true,
            detach_keys: self.detach_keys.unwrap_or_default(),
        };
        session.check_terminal()?;
        let first = Message::Attach(AttachOptions {
            container,
            stdin: session.stdin,
            start: true,
            window_size: if session.tty { terminal::window_size() } else { None },
        });
        let outcome = session.drive(first, |requests| client.attach(requests)).await;
        outcome.map(finish).map_err(|failure| failure.of_start("start"))
    }
}
