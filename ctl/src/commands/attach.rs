//! `berth attach`

use berth_proto::berth::v1::stream_request::Message;
use berth_proto::berth::v1::{AttachOptions, InspectRequest, State};
use clap::Args;

use super::{finish, missing};
use crate::client::Daemon;
use crate::detach::DetachKeys;
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::terminal;

/// Attach to a running container
#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// Do not attach standard input
    #[arg(long)]
    no_stdin: bool,
    /// Key sequence that leaves the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// The container, by name or id
    container: String,
}

impl Attach {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let mut client = daemon.containers().await?;
        let request = InspectRequest { container: self.container.clone() };
        let inspected = client.inspect(request).await?.into_inner();
        let container = inspected.container.ok_or_else(|| missing("container"))?;
        match container.state() {
            // How a container is whose state is not known, the daemon says.
            State::Running | State::Unknown => {}
            State::Paused => {
                return Err(Failure::new("cannot attach to a paused container: resume it first"));
            }
            _ => return Err(Failure::new("cannot attach to a stopped container: start it first")),
        }
        let options = inspected.options.ok_or_else(|| missing("container options"))?;
        let session = Session {
            stdin: options.stdin && !self.no_stdin,
            tty: options.tty,
            forward_signals: true,
            detach_keys: self.detach_keys.unwrap_or_default(),
        };
        session.check_terminal()?;
        let first = Message::Attach(AttachOptions {
            container: self.container,
            stdin: session.stdin,
            start: false,
            window_size: if session.tty { terminal::window_size() } else { None },
        });
        session.drive(first, |requests| client.attach(requests)).await.map(finish)
    }
}
