//! The calling side.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_types::{Error, Kind, Result, ResultExt};
use bytes::Bytes;
use prost::Message;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::frame::{self, Frame};
use crate::message::{KeyValue, RequestMessage, ResponseMessage};
use crate::outbox::{self, Outbox};
use crate::socket::{self, ReadHalf};
use crate::stream::{self, Item, Stream};

/// What goes along with a call.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How long to wait for the answer; `None` waits for as long as the connection stands.
    pub timeout: Option<Duration>,
    /// Keys and values for the server.
    pub metadata: Vec<(String, String)>,
}

impl Options {
    /// Only a limit on the time.
    pub fn timeout(timeout: Duration) -> Self {
        Self { timeout: Some(timeout), metadata: Vec::new() }
    }
}

/// A connection to a server. Clones share it; it is closed when the last clone is dropped. What was
/// sent before is then lost if the server has left no room for it.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    outbox: Outbox,
    waiting: Arc<Mutex<Waiting>>,
    reader: AbortHandle,
    /// Closes with the connection's reading half.
    ended: watch::Receiver<()>,
    /// The writer's patience.
    _stays: oneshot::Sender<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Who waits for what.
struct Waiting {
    /// The next stream id; odd, and rising on the wire.
    next: u32,
    slots: HashMap<u32, Slot>,
    /// Why the connection ended.
    failure: Option<Error>,
}

enum Slot {
    Call(oneshot::Sender<Result<Bytes>>),
    Stream(mpsc::Sender<Item>),
}

impl Client {
    /// Connects to the Unix socket at `path`.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when nothing listens there, otherwise as [`Error::io`].
    pub async fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).await.map_err(|error| {
            let what = format!("connect to {}", path.display());
            match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                    Error::unavailable(format!("{what}: {error}"))
                }
                _ => Error::io(what, &error),
            }
        })?;
        Self::from_stream(stream)
    }

    /// Speaks over a connected socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// As [`Error::io`], when the socket can't be watched.
    pub fn from_stream(stream: UnixStream) -> Result<Self> {
        let (read, write) = socket::split(stream).context(|| "watch a ttrpc connection")?;
        let (stays, left) = oneshot::channel();
        let (outbox, _) = Outbox::start(write, left);
        let waiting =
            Arc::new(Mutex::new(Waiting { next: 1, slots: HashMap::new(), failure: None }));
        let (open, ended) = watch::channel(());
        let reader = tokio::spawn(receive(read, waiting.clone(), open)).abort_handle();
        Ok(Self { shared: Arc::new(Shared { outbox, waiting, reader, ended, _stays: stays }) })
    }

    /// Returns once the other side has closed the connection, or it broke.
    pub async fn closed(&self) {
        let mut ended = self.shared.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    /// Makes one call and returns its answer. Dropping the future forgets the answer, it does not
    /// undo the call.
    ///
    /// # Errors
    /// The server's failure with its kind; [`Kind::DeadlineExceeded`] after
    /// [`Options::timeout`]; [`Kind::Unavailable`] when the connection is gone;
    /// [`Kind::Internal`] for an answer of another type.
    pub async fn call<Q: Message, R: Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &Q,
        options: &Options,
    ) -> Result<R> {
        let message = request_message(service, method, request.encode_to_vec().into(), options);
        let answer = self.exchange(&message);
        let payload = match options.timeout {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
                Err(Error::deadline_exceeded(format!(
                    "{service}/{method} gave no answer within {limit:?}"
                )))
            }),
        }?;
        R::decode(payload)
            .map_err(|error| Error::internal(format!("{service}/{method} answered: {error}")))
    }

    /// Opens a stream on which both sides send as they like. See the crate's documentation on slow
    /// readers.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when the connection is gone. A server that refuses the stream says so
    /// through [`crate::Receiver::next`].
    pub async fn stream(&self, service: &str, method: &str, options: &Options) -> Result<Stream> {
        let message = request_message(service, method, Bytes::new(), options);
        let (sender, receiver) = mpsc::channel(stream::QUEUE);
        let flags = frame::REMOTE_OPEN | frame::NO_DATA;
        let id = self.open(&message, flags, Slot::Stream(sender)).await?;
        Ok(Stream::new(id, self.shared.outbox.clone(), receiver))
    }

    async fn exchange(&self, message: &RequestMessage) -> Result<Bytes> {
        let (sender, receiver) = oneshot::channel();
        let id = self.open(message, 0, Slot::Call(sender)).await?;
        let _forget = Forget { waiting: &self.shared.waiting, id };
        match receiver.await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(lock(&self.shared.waiting).failure.clone().unwrap_or_else(outbox::closed))
            }
        }
    }

    /// Sends a request frame and registers who gets the answer. Ids rise in the order in which
    /// frames are queued: servers refuse one that doesn't.
    async fn open(&self, message: &RequestMessage, flags: u8, slot: Slot) -> Result<u32> {
        let place = match self.shared.outbox.place().await {
            Ok(place) => place,
            Err(error) => return Err(lock(&self.shared.waiting).failure.clone().unwrap_or(error)),
        };
        let mut waiting = lock(&self.shared.waiting);
        if let Some(failure) = &waiting.failure {
            return Err(failure.clone());
        }
        let id = waiting.next;
        let next = id.checked_add(2).ok_or_else(|| {
            Error::unavailable("this ttrpc connection has used up its stream ids: connect again")
        })?;
        let frame = frame::encode(id, frame::REQUEST, flags, message)?;
        waiting.next = next;
        waiting.slots.insert(id, slot);
        place.put(frame);
        Ok(id)
    }
}

fn request_message(
    service: &str,
    method: &str,
    payload: Bytes,
    options: &Options,
) -> RequestMessage {
    let nanos = options.timeout.map_or(0, |limit| limit.as_nanos().min(i64::MAX as u128) as i64);
    let pair =
        |(key, value): &(String, String)| KeyValue { key: key.clone(), value: value.clone() };
    RequestMessage {
        service: service.to_owned(),
        method: method.to_owned(),
        payload,
        timeout_nano: nanos,
        metadata: options.metadata.iter().map(pair).collect(),
    }
}

/// Takes a call that nobody waits for any more off the list.
struct Forget<'a> {
    waiting: &'a Mutex<Waiting>,
    id: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).slots.remove(&self.id);
    }
}

/// The connection's reader: hands every answer to who waits for it. `open` is dropped at the end.
async fn receive(read: ReadHalf, waiting: Arc<Mutex<Waiting>>, open: watch::Sender<()>) {
    let mut reader = BufReader::with_capacity(512, read);
    let failure = loop {
        match frame::read(&mut reader).await {
            Ok(Some(frame)) => deliver(&waiting, frame).await,
            Ok(None) => break outbox::closed(),
            Err(error) => break error,
        }
    };
    let mut waiting = lock(&waiting);
    waiting.failure = Some(failure);
    waiting.slots.clear();
    drop(open);
}

async fn deliver(waiting: &Mutex<Waiting>, frame: Frame) {
    let id = frame.stream;
    let last = frame.kind == frame::RESPONSE || frame.has(frame::REMOTE_CLOSED);
    let slot = match lock(waiting).slots.get(&id) {
        Some(Slot::Stream(items)) => Some(items.clone()),
        _ => None,
    };
    if let Some(items) = slot {
        for item in stream_items(frame) {
            // Fails when the stream's reader is gone, who then wants nothing of it.
            let _ = items.send(item).await;
        }
        if last {
            lock(waiting).slots.remove(&id);
        }
    } else if let Some(Slot::Call(answer)) = lock(waiting).slots.remove(&id) {
        // As above: the caller may have given up.
        let _ = answer.send(response(frame));
    }
}

/// What a frame means to a client's stream.
fn stream_items(frame: Frame) -> Vec<Item> {
    if frame.kind != frame::DATA {
        return match response(frame) {
            Ok(payload) if payload.is_empty() => vec![Item::End],
            Ok(payload) => vec![Item::Data(payload), Item::End],
            Err(error) => vec![Item::Failed(error)],
        };
    }
    stream::data_items(frame)
}

fn response(frame: Frame) -> Result<Bytes> {
    let payload = frame.payload.map_err(frame::too_large)?;
    ResponseMessage::decode(payload)
        .map_err(|error| Error::new(Kind::Internal, format!("malformed ttrpc response: {error}")))?
        .outcome()
}

/// A panic elsewhere leaves the list whole: every change to it is one step.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
