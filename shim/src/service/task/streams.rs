//! ResizePty and CloseIO: the streams of a process.

use berth_proto::containerd::task::v3::{CloseIoRequest, ResizePtyRequest};
use berth_types::Result;

use super::Task;

impl Task {
    /// # Errors
    /// NotFound without such a process.
    pub(super) fn resize_pty(&self, request: ResizePtyRequest) -> Result<()> {
        let process = self.process(&request.exec_id)?;
        let clamp = |cells| u16::try_from(cells).unwrap_or(u16::MAX);
        process.streams.resize(clamp(request.width), clamp(request.height))
    }

    /// # Errors
    /// NotFound without such a process.
    pub(super) fn close_io(&self, request: CloseIoRequest) -> Result<()> {
        let process = self.process(&request.exec_id)?;
        if request.stdin {
            process.streams.close_stdin();
        }
        Ok(())
    }
}
