//! `features`: what this runtime can do.

use berth_types::Result;

use crate::state;

/// Prints the specification's features document.
#[derive(Debug, clap::Args)]
pub(crate) struct Features {}

impl Features {
    /// # Errors
    /// When standard output can't be written.
    pub(crate) fn run(self) -> Result<()> {
        state::print(&containerd_shim_berth_v1::features::features())
    }
}
