//! A call as its handler sees it.

use std::time::Duration;

use berth_types::{Error, Result};
use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use crate::message::RequestMessage;
use crate::outbox::Outbox;

/// The process at the other end of a connection, as the kernel vouches for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id in our pid namespace, where known.
    pub pid: Option<i32>,
    /// Effective user id when it connected.
    pub uid: u32,
}

/// One call: what is asked, and by whom.
pub struct Request {
    /// Fully qualified service name, such as `containerd.task.v2.Task`.
    pub service: String,
    /// Method name, such as `Create`.
    pub method: String,
    /// The encoded request message. Empty when a stream's messages follow.
    pub payload: Bytes,
    /// When the caller stops waiting. The call is then answered with DeadlineExceeded, but its
    /// handler goes on to its end.
    pub deadline: Option<Instant>,
    /// The caller.
    pub peer: Peer,
    metadata: Vec<(String, String)>,
    outbox: Outbox,
}

impl Request {
    pub(crate) fn new(message: RequestMessage, peer: Peer, outbox: Outbox) -> Self {
        let timeout = u64::try_from(message.timeout_nano).ok().filter(|nanos| *nanos > 0);
        Self {
            service: message.service,
            method: message.method,
            payload: message.payload,
            deadline: timeout.map(|nanos| Instant::now() + Duration::from_nanos(nanos)),
            peer,
            metadata: message.metadata.into_iter().map(|pair| (pair.key, pair.value)).collect(),
            outbox,
        }
    }

    /// Decodes the request message.
    ///
    /// # Errors
    /// [`berth_types::Kind::InvalidArgument`] when the payload is no such message.
    pub fn decode<M: Message + Default>(&self) -> Result<M> {
        M::decode(self.payload.clone()).map_err(|error| {
            Error::invalid_argument(format!("{}/{}: {error}", self.service, self.method))
        })
    }

    /// The first value of a metadata key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Returns once the caller's connection is gone. A handler that only waits, and changes
    /// nothing, should end then.
    pub async fn abandoned(&self) {
        self.outbox.closed().await;
    }

    /// The answer to a method that isn't offered.
    pub fn unimplemented(&self) -> Error {
        Error::unimplemented(format!("{}/{} is not implemented", self.service, self.method))
    }
}
