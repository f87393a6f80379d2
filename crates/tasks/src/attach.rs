//! Attaching to the streams of a process whose shim is ours.

use berth_proto::berth::shim::v1::{AttachRequest, AttachResponse};
use berth_ttrpc::{Client, Options, Receiver, Sender};
use berth_types::{Error, Result};

use crate::Task;
use crate::runtime::Runtime;
use crate::shim::CONNECT;

/// A connection to a process's streams. Dropping it detaches.
pub struct Attachment {
    /// To the process.
    pub sender: Sender,
    /// From the process, as [`AttachResponse`]s. It ends when the process's outputs have ended.
    pub receiver: Receiver,
    /// The stream ends with its connection.
    _connection: Client,
}

impl Task {
    /// Attaches to a process. Once this returns no output is missed. With `lossless` the process
    /// waits for this client; otherwise a client that falls far behind is cut off.
    ///
    /// # Errors
    /// `Unimplemented` for a shim that isn't ours, `NotFound` without such a process,
    /// `DeadlineExceeded` when the shim hangs.
    pub async fn attach(&self, exec_id: &str, lossless: bool) -> Result<Attachment> {
        if self.runtime != Runtime::Own {
            return Err(Error::unimplemented(format!(
                "container {} was made with a runtime that can't be attached to",
                self.id()
            )));
        }
        tokio::time::timeout(CONNECT, self.attach_now(exec_id, lossless)).await.unwrap_or_else(
            |_| {
                Err(Error::deadline_exceeded(format!(
                    "the shim of container {} did not answer Attach within {} s",
                    self.id(),
                    CONNECT.as_secs()
                )))
            },
        )
    }

    async fn attach_now(&self, exec_id: &str, lossless: bool) -> Result<Attachment> {
        let client = Client::connect(self.shim.socket()).await?;
        let options = Options::default();
        let mut stream = client.stream("berth.shim.v1.Streams", "Attach", &options).await?;
        let request = AttachRequest {
            id: self.id().to_owned(),
            exec_id: exec_id.to_owned(),
            lossless,
            ..Default::default()
        };
        stream.sender.send(&request).await?;
        let attached: Option<AttachResponse> = stream.receiver.next().await?;
        if attached.is_none() {
            return Err(Error::unavailable(format!("container {} has just ended", self.id())));
        }
        Ok(Attachment { sender: stream.sender, receiver: stream.receiver, _connection: client })
    }
}
