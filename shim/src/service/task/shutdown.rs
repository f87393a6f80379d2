//! Connect and Shutdown: the shim itself.

use berth_proto::containerd::task::v3::{ConnectRequest, ConnectResponse, ShutdownRequest};
use berth_types::Result;

use super::Shim;

impl Shim {
    /// # Errors
    /// NotFound for another container than this shim's.
    pub(super) fn connect(&self, request: ConnectRequest) -> Result<ConnectResponse> {
        self.check_id(&request.id)?;
        let init = self.lock().get("").map_or(0, |process| process.pid());
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: init as u32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Ends the shim, unless there is a container. Being told to end `now` changes nothing about
    /// that: a container without a shim is out of everybody's hands.
    ///
    /// # Errors
    /// None.
    pub(super) fn shut_down(&self, _: ShutdownRequest) -> Result<()> {
        if self.lock().is_empty() {
            self.shutdown.notify_one();
        }
        Ok(())
    }
}
