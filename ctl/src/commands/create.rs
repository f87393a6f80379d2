//! `berth create`

use berth_proto::berth::v1::CreateRequest;
use clap::Args;

use super::missing::with_image;
use crate::client::Daemon;
use crate::failure::Outcome;
use crate::options::MakeOptions;
use crate::output::say;

/// Create a new container
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    override_usage = "berth create [OPTIONS] IMAGE [COMMAND] [ARG]..."
)]
pub(crate) struct Create {
    #[command(flatten)]
    make: MakeOptions,
}

impl Create {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let outcome = async {
            let created = with_image(daemon, self.make.into_message()?, async |options| {
                let request = CreateRequest { options: Some(options), start: false };
                Ok(daemon.containers().await?.create(request).await?.into_inner())
            });
            say(&created.await?.id);
            Ok(0)
        };
        outcome.await.map_err(|failure: crate::failure::Failure| failure.of_start("create"))
    }
}
