//! `run`: `create` and `start` in one, and `delete` after the end.

use berth_types::{Kind, Result};

use crate::birth::{Birth, Born};
use crate::foreground;
use crate::record::Records;

/// Runs a container.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) birth: Birth,
    /// Don't wait for the end
    #[arg(short, long)]
    detach: bool,
    /// Leave the container to be deleted after its end
    #[arg(long)]
    keep: bool,
    /// Taken for granted: processes whose parents end go to the container's first one
    #[arg(long)]
    no_subreaper: bool,
}

impl Run {
    /// The status of its process.
    ///
    /// # Errors
    /// As [`Birth::create`] and [`Container::start`](containerd_shim_berth_v1::container::Container::start);
    /// nothing is left then.
    pub(crate) async fn run(self, records: &Records) -> Result<u8> {
        let born = self.birth.create(records, self.detach).await?;
        let done = match self.detach {
            true => records.find(&self.birth.id)?.container()?.start().await.map(|()| 0),
            false => attend(born).await,
        };
        if done.is_err() || !(self.detach || self.keep) {
            match records.claim(&self.birth.id).await {
                // Somebody else was faster.
                Err(error) if error.kind() == Kind::NotFound => {}
                found => found?.delete().await?,
            }
        }
        done
    }
}

async fn attend(born: Born) -> Result<u8> {
    let Born { mut container, terminal, .. } = born;
    let attendant = foreground::Attendant::new()?.with_terminal(terminal);
    container.start().await?;
    attendant.attend(container.init()).await
}
