//! `containerd.services.streaming.v1.Streaming`: streams that a client opens beside a call, and
//! names in that call.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use prost::{Message, Name};
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::Stream as Messages;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming as Incoming};

use berth_proto::containerd::services::streaming::v1::{StreamInit, streaming_server};
use berth_types::{Error, Result};

use super::backend::Backend;
use super::status::status;

/// Messages that wait for a client.
const AHEAD: usize = 16;

/// Whose stream, and which.
type Key = (String, String);

/// The streams that are open and not in use yet. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Streams {
    open: Arc<Mutex<HashMap<Key, (u64, Stream)>>>,
    last: Arc<AtomicU64>,
}

/// A client's stream. Dropped, it ends.
pub(crate) struct Stream {
    incoming: Incoming<Any>,
    outgoing: mpsc::Sender<Result<Any, Status>>,
}

impl Streams {
    /// Keeps a stream until somebody [`take`](Self::take)s it or its client goes away. Returns
    /// what is to be sent to the client.
    fn keep(&self, key: Key, incoming: Incoming<Any>) -> Result<Outgoing> {
        let (outgoing, messages) = mpsc::channel(AHEAD);
        // The client waits for a first message, which says that the stream is known.
        let greeting = Any { type_url: <()>::full_name(), value: Vec::new() };
        outgoing.try_send(Ok(greeting)).map_err(|_| Error::internal("a new stream is full"))?;
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        match self.lock().entry(key.clone()) {
            Entry::Occupied(_) => {
                return Err(Error::already_exists(format!("stream {:?}: already exists", key.1)));
            }
            Entry::Vacant(place) => place.insert((number, Stream { incoming, outgoing })),
        };
        let kept = Kept { streams: self.clone(), key, number };
        Ok(Outgoing { messages: ReceiverStream::new(messages), _kept: kept })
    }

    /// The stream that `namespace`'s client has opened as `id`.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn take(&self, namespace: &str, id: &str) -> Result<Stream> {
        let taken = self.lock().remove(&(namespace.to_owned(), id.to_owned()));
        let taken = taken.map(|(_, stream)| stream);
        taken.ok_or_else(|| Error::not_found(format!("stream {id:?}: not found")))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (u64, Stream)>> {
        // No code panics while it holds the lock, and the map is consistent at every step.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// The client's next message; `None` when it has ended its side.
    ///
    /// # Errors
    /// `Cancelled` when the client is gone, `InvalidArgument` for a message of another type.
    pub(crate) async fn next<M: Message + Name + Default>(&mut self) -> Result<Option<M>> {
        let message = self.incoming.message().await;
        let message = message.map_err(|_| Error::cancelled("the client has left its stream"))?;
        message.map(|message| decode(&message)).transpose()
    }

    /// Sends a message; waits while the client does not read.
    ///
    /// # Errors
    /// `Cancelled` when the client is gone.
    pub(crate) async fn send<M: Message + Name>(&self, message: &M) -> Result<()> {
        let message = Any { type_url: M::full_name(), value: message.encode_to_vec() };
        let sent = self.outgoing.send(Ok(message)).await;
        sent.map_err(|_| Error::cancelled("the client has left its stream"))
    }
}

/// Decodes a message by its type, with or without a host before its name.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn decode<M: Message + Name + Default>(message: &Any) -> Result<M> {
    if message.type_url.rsplit('/').next() != Some(&M::full_name()) {
        return Err(Error::invalid_argument(format!(
            "a message has the type {:?}, expected {}",
            message.type_url,
            M::full_name()
        )));
    }
    M::decode(&*message.value)
        .map_err(|error| Error::invalid_argument(format!("{} is malformed: {error}", M::NAME)))
}

/// What a client receives. Dropped, the stream is no longer kept.
pub(crate) struct Outgoing {
    messages: ReceiverStream<Result<Any, Status>>,
    _kept: Kept,
}

impl Messages for Outgoing {
    type Item = Result<Any, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.messages).poll_next(cx)
    }
}

/// The place of one stream among those that are open.
struct Kept {
    streams: Streams,
    key: Key,
    number: u64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        if open.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            open.remove(&self.key);
        }
    }
}

/// Opens streams.
pub(crate) struct Streaming(pub(crate) Backend);

#[tonic::async_trait]
impl streaming_server::Streaming for Streaming {
    type StreamStream = Outgoing;

    async fn stream(
        &self,
        request: Request<Incoming<Any>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let mut incoming = request.into_inner();
        let first = incoming.message().await?;
        let missing = || Error::invalid_argument("a stream must begin with its id");
        let first = first.ok_or_else(missing).map_err(status)?;
        let StreamInit { id } = decode(&first).map_err(status)?;
        if id.is_empty() {
            return Err(status(missing()));
        }
        let key = (scope.namespace().to_owned(), id);
        self.0.streams.keep(key, incoming).map(Response::new).map_err(status)
    }
}
