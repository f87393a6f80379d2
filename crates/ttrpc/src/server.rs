//! The answering side.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use berth_types::{Error, Result, ResultExt};
use prost::Message;
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::frame::{self, Frame};
use crate::message::{RequestMessage, ResponseMessage};
use crate::outbox::Outbox;
use crate::request::{Peer, Request};
use crate::socket;
use crate::stream::{self, Item, Stream};

/// What a server offers.
///
/// Each call runs in a task of its own and to its end, even if its caller leaves: an operation
/// belongs to the server. Those that only wait watch [`Request::abandoned`].
pub trait Handler: Send + Sync + 'static {
    /// Answers a unary call with an encoded message; [`Request::unimplemented`] for one that
    /// isn't offered.
    fn call(&self, request: Request) -> impl Future<Output = Result<Vec<u8>>> + Send;

    /// Serves a stream. Returning ends it, for the client, with that outcome.
    fn stream(&self, request: Request, stream: Stream) -> impl Future<Output = Result<()>> + Send {
        drop(stream);
        async move { Err(request.unimplemented()) }
    }
}

/// Serves a [`Handler`] on listening sockets.
pub struct Server<H> {
    handler: Arc<H>,
}

impl<H: Handler> Server<H> {
    /// A server of `handler`.
    pub fn new(handler: Arc<H>) -> Self {
        Self { handler }
    }

    /// Accepts connections until the future is dropped, which closes them all. A connection from
    /// a user other than root and our own is closed unanswered.
    ///
    /// # Errors
    /// Only when the listener itself is of no use any more.
    pub async fn serve(&self, listener: &UnixListener) -> Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(connection(self.handler.clone(), stream));
                    }
                    // Out of descriptors or memory: the connection waits until some are free.
                    Err(error) if out_of_resources(&error) => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                    Err(error) => return Err(error).context(|| "accept a ttrpc connection"),
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

fn out_of_resources(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The state of one connection.
struct Connection<H> {
    handler: Arc<H>,
    peer: Peer,
    outbox: Outbox,
    /// Streams whose client still sends.
    streams: HashMap<u32, mpsc::Sender<Item>>,
    last: u32,
}

/// Reads one connection to its end. A malformed frame ends it: what follows can't be told apart.
async fn connection<H: Handler>(handler: Arc<H>, stream: UnixStream) {
    let Ok(credentials) = stream.peer_cred() else { return };
    let peer = Peer { pid: credentials.pid(), uid: credentials.uid() };
    if peer.uid != 0 && peer.uid != rustix::process::geteuid().as_raw() {
        return;
    }
    let Ok((read, write)) = socket::split(stream) else { return };
    let (outbox, writer) = Outbox::start(write, std::future::pending::<()>());
    let mut connection = Connection { handler, peer, outbox, streams: HashMap::new(), last: 0 };
    let mut reader = BufReader::with_capacity(512, read);
    while let Ok(Some(frame)) = frame::read(&mut reader).await {
        let handled = tokio::select! {
            biased;
            handled = connection.handle(frame) => handled.is_ok(),
            // Only a stream that isn't read makes it wait: nothing else would notice then.
            _ = reader.get_ref().hung_up() => false,
        };
        if !handled {
            break;
        }
    }
    // What still runs learns through its outbox that nobody listens.
    writer.abort();
}

impl<H: Handler> Connection<H> {
    /// # Errors
    /// Only when the connection is gone.
    async fn handle(&mut self, frame: Frame) -> Result<()> {
        match frame.kind {
            frame::REQUEST => match self.admit(&frame) {
                Ok(request) => self.start(frame.stream, frame.flags, request).await,
                Err(error) => respond(&self.outbox, frame.stream, Err(error)).await?,
            },
            frame::DATA => self.data(frame).await,
            // The protocol leaves other types to its later versions.
            _ => {}
        }
        Ok(())
    }

    fn admit(&mut self, frame: &Frame) -> Result<Request> {
        if frame.stream.is_multiple_of(2) || frame.stream <= self.last {
            return Err(Error::invalid_argument(format!(
                "ttrpc stream id {} must be odd and above {}",
                frame.stream, self.last
            )));
        }
        self.last = frame.stream;
        let payload = frame.payload.clone().map_err(frame::too_large)?;
        let message = RequestMessage::decode(payload)
            .map_err(|error| Error::invalid_argument(format!("ttrpc request: {error}")))?;
        Ok(Request::new(message, self.peer, self.outbox.clone()))
    }

    async fn start(&mut self, id: u32, flags: u8, request: Request) {
        let (handler, outbox) = (self.handler.clone(), self.outbox.clone());
        if flags & (frame::REMOTE_OPEN | frame::REMOTE_CLOSED) == 0 {
            tokio::spawn(answer(handler, outbox, id, request));
            return;
        }
        let (sender, receiver) = mpsc::channel(stream::QUEUE);
        // The queue is empty and holds more than the two items of an opening.
        if flags & frame::NO_DATA == 0 && !request.payload.is_empty() {
            let _ = sender.send(Item::Data(request.payload.clone())).await;
        }
        if flags & frame::REMOTE_OPEN == 0 {
            let _ = sender.send(Item::End).await;
        } else {
            self.streams.insert(id, sender);
        }
        let stream = Stream::new(id, outbox.clone(), receiver);
        tokio::spawn(serve_stream(handler, outbox, id, request, stream));
    }

    async fn data(&mut self, frame: Frame) {
        let id = frame.stream;
        let end = frame.has(frame::REMOTE_CLOSED);
        // Data for a stream that has ended crossed its end on the wire.
        let Some(items) = self.streams.get(&id) else { return };
        let mut gone = end;
        for item in stream::data_items(frame) {
            gone |= items.send(item).await.is_err();
        }
        if gone {
            self.streams.remove(&id);
        }
    }
}

async fn answer<H: Handler>(handler: Arc<H>, outbox: Outbox, id: u32, request: Request) {
    let deadline = request.deadline;
    let late = format!("{}/{} took longer than its caller waits", request.service, request.method);
    let mut work = std::pin::pin!(handler.call(request));
    let outcome = match deadline {
        None => work.await,
        Some(deadline) => match tokio::time::timeout_at(deadline, &mut work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let _ = respond(&outbox, id, Err(Error::deadline_exceeded(late))).await;
                let _ = work.await;
                return;
            }
        },
    };
    // A caller that is gone needs no answer.
    let _ = respond(&outbox, id, outcome).await;
}

async fn serve_stream<H: Handler>(
    handler: Arc<H>,
    outbox: Outbox,
    id: u32,
    request: Request,
    stream: Stream,
) {
    let ended = match handler.stream(request, stream).await {
        Ok(()) => {
            let flags = frame::REMOTE_CLOSED | frame::NO_DATA;
            match frame::encode(id, frame::DATA, flags, &()) {
                Ok(frame) => outbox.send(frame).await,
                Err(error) => Err(error),
            }
        }
        Err(error) => respond(&outbox, id, Err(error)).await,
    };
    // A client that is gone has seen the end.
    drop(ended);
}

async fn respond(outbox: &Outbox, id: u32, outcome: Result<Vec<u8>>) -> Result<()> {
    let frame = match frame::encode(id, frame::RESPONSE, 0, &ResponseMessage::new(outcome)) {
        Ok(frame) => frame,
        Err(error) => frame::encode(id, frame::RESPONSE, 0, &ResponseMessage::new(Err(error)))?,
    };
    outbox.send(frame).await
}
