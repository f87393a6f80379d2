//! `create`: a container whose process waits to be started.

use berth_types::Result;

use crate::birth::Birth;
use crate::record::Records;

/// Creates a container.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) birth: Birth,
}

impl Create {
    /// # Errors
    /// As [`Birth::create`].
    pub(crate) async fn run(self, records: &Records) -> Result<()> {
        self.birth.create(records, true).await.map(drop)
    }
}
