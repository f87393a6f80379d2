//! `kill`: a signal for the process of a container, or for all in it.

use std::os::fd::AsFd;

use berth_sys::pidfd;
use berth_types::{Error, Result, ResultExt, signal};
use containerd_shim_berth_v1::container;

use crate::record::Records;

/// Sends a signal.
#[derive(Debug, clap::Args)]
pub(crate) struct Kill {
    /// To every process of the container
    #[arg(short, long)]
    all: bool,
    /// The container's id
    id: String,
    /// Its name or number
    #[arg(default_value = "TERM")]
    signal: String,
}

impl Kill {
    /// # Errors
    /// NotFound without such a container, FailedPrecondition when it has ended, InvalidArgument
    /// for what is no signal.
    pub(crate) async fn run(self, records: &Records) -> Result<()> {
        let number = match &*self.signal {
            // Clients ask so whether the process is there.
            "0" => 0,
            signal => signal::parse(signal)?,
        };
        let found = match self.all {
            // Nobody deletes it, and makes another one of that name, meanwhile.
            true => records.claim(&self.id).await?,
            false => records.find(&self.id)?,
        };
        let remains = found.remains()?;
        if self.all {
            return container::signal_all(remains.cgroup(), number);
        }
        let stopped = || Error::failed_precondition("container not running");
        let life = found.life().ok_or_else(stopped)?;
        match pidfd::send_signal(life.pidfd.as_fd(), number) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                return Err(stopped());
            }
            other => other.context(|| format!("send signal {number} to {}", self.id))?,
        }
        // A frozen process is killed only once it thaws.
        if number == signal::SIGKILL && remains.cgroup().is_frozen()? {
            remains.cgroup().thaw()?;
        }
        Ok(())
    }
}
