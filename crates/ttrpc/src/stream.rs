//! The two halves of a stream, the same for client and server.

use berth_types::{Error, Result};
use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;

use crate::frame::{self, Frame};
use crate::outbox::{self, Outbox};

/// Messages of one stream that wait for its reader; beyond that, the connection isn't read.
pub(crate) const QUEUE: usize = 4;

/// What the connection's reader hands to a stream.
pub(crate) enum Item {
    Data(Bytes),
    /// The peer sends no more.
    End,
    /// The peer ended the stream with a failure.
    Failed(Error),
}

/// What a data frame means to a stream: a message unless the flag denies it, then perhaps the end.
pub(crate) fn data_items(frame: Frame) -> Vec<Item> {
    let (no_data, end) = (frame.has(frame::NO_DATA), frame.has(frame::REMOTE_CLOSED));
    let mut items = match frame.payload {
        Ok(_) if no_data => Vec::new(),
        Ok(payload) => vec![Item::Data(payload)],
        Err(length) => vec![Item::Failed(frame::too_large(length))],
    };
    if end {
        items.push(Item::End);
    }
    items
}

/// A stream of messages in both directions.
pub struct Stream {
    /// The half that sends.
    pub sender: Sender,
    /// The half that receives.
    pub receiver: Receiver,
}

impl Stream {
    pub(crate) fn new(id: u32, outbox: Outbox, items: mpsc::Receiver<Item>) -> Self {
        Self { sender: Sender { id, outbox }, receiver: Receiver { items, ended: false } }
    }
}

/// The sending half of a stream.
pub struct Sender {
    id: u32,
    outbox: Outbox,
}

impl Sender {
    /// Sends one message, waiting while the connection is full. Dropping the future sends nothing.
    ///
    /// # Errors
    /// [`berth_types::Kind::Unavailable`] when the connection is gone,
    /// [`berth_types::Kind::ResourceExhausted`] for a message over [`crate::MAX_MESSAGE`].
    pub async fn send(&self, message: &impl Message) -> Result<()> {
        self.outbox.send(frame::encode(self.id, frame::DATA, 0, message)?).await
    }

    /// Tells the peer that no more messages come. Dropping a client's sender without this leaves
    /// the peer waiting until the connection closes.
    ///
    /// # Errors
    /// [`berth_types::Kind::Unavailable`] when the connection is gone.
    pub async fn close(self) -> Result<()> {
        let flags = frame::REMOTE_CLOSED | frame::NO_DATA;
        self.outbox.send(frame::encode(self.id, frame::DATA, flags, &())?).await
    }
}

/// The receiving half of a stream.
pub struct Receiver {
    items: mpsc::Receiver<Item>,
    ended: bool,
}

impl Receiver {
    /// The next message; `None` once the peer has closed its half. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// The peer's failure with its kind, [`berth_types::Kind::Unavailable`] when the connection is
    /// gone, [`berth_types::Kind::InvalidArgument`] when the payload is no such message.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>> {
        if self.ended {
            return Ok(None);
        }
        match self.items.recv().await {
            Some(Item::Data(payload)) => M::decode(payload)
                .map(Some)
                .map_err(|error| Error::invalid_argument(format!("stream message: {error}"))),
            Some(Item::End) => {
                self.ended = true;
                Ok(None)
            }
            Some(Item::Failed(error)) => {
                self.ended = true;
                Err(error)
            }
            None => Err(outbox::closed()),
        }
    }
}
