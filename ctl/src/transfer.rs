//! Transfers: images from one place to another in one call, with streams beside it for what is sent
//! and told meanwhile.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use berth_proto::containerd::services::streaming::v1::StreamInit;
use berth_proto::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use berth_proto::containerd::types::transfer::{Data, Progress, WindowUpdate};
use prost::{Message, Name};
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Daemon;
use crate::failure::{Failure, Outcome};

/// How many bytes the daemon may send ahead.
const WINDOW: i32 = 4 << 20;

/// The largest message that is sent.
const CHUNK: usize = 1 << 20;

/// Messages that wait to be sent.
const AHEAD: usize = 4;

/// A stream that this command has opened.
pub(crate) struct Stream {
    id: String,
    outgoing: mpsc::Sender<Any>,
    incoming: Streaming<Any>,
}

impl Stream {
    /// Opens a stream, which a transfer may name.
    pub(crate) async fn open(daemon: &Daemon) -> Outcome<Self> {
        let (outgoing, messages) = mpsc::channel(AHEAD);
        let id = unique();
        send(&outgoing, &StreamInit { id: id.clone() }).await;
        let opened = daemon.streaming().await?.stream(ReceiverStream::new(messages)).await?;
        let mut incoming = opened.into_inner();
        // The greeting says that the stream is known.
        incoming.message().await?;
        Ok(Self { id, outgoing, incoming })
    }

    /// What transfers call it.
    pub(crate) fn id(&self) -> String {
        self.id.clone()
    }

    /// Takes the bytes that the daemon sends, to their end.
    pub(crate) async fn receive(
        mut self,
        mut take: impl FnMut(&[u8]) -> Outcome<()>,
    ) -> Outcome<()> {
        send(&self.outgoing, &WindowUpdate { update: WINDOW }).await;
        while let Some(Data { data }) = self.next().await? {
            take(&data)?;
            let update = i32::try_from(data.len()).unwrap_or(i32::MAX);
            send(&self.outgoing, &WindowUpdate { update }).await;
        }
        Ok(())
    }

    /// Sends the pieces that come, as the daemon has room for them.
    pub(crate) async fn send(
        mut self,
        mut pieces: mpsc::Receiver<Outcome<Vec<u8>>>,
    ) -> Outcome<()> {
        let mut window = 0;
        while let Some(piece) = pieces.recv().await {
            let piece = piece?;
            let mut rest = piece.as_slice();
            while !rest.is_empty() {
                while window == 0 {
                    match self.next::<WindowUpdate>().await? {
                        Some(WindowUpdate { update }) => {
                            window += usize::try_from(update).unwrap_or_default();
                        }
                        // Why it wants no more is the answer to the call.
                        None => return Ok(()),
                    }
                }
                let (data, behind) = rest.split_at(rest.len().min(window).min(CHUNK));
                send(&self.outgoing, &Data { data: data.to_vec() }).await;
                window -= data.len();
                rest = behind;
            }
        }
        // A call that is dropped takes along what was not read of it.
        drop(self.outgoing);
        while self.incoming.message().await?.is_some() {}
        Ok(())
    }

    /// Hears of progress to its end.
    pub(crate) async fn watch(mut self, mut hear: impl FnMut(Progress)) -> Outcome<()> {
        while let Some(progress) = self.next().await? {
            hear(progress);
        }
        Ok(())
    }

    async fn next<M: Message + Name + Default>(&mut self) -> Outcome<Option<M>> {
        let Some(message) = self.incoming.message().await? else { return Ok(None) };
        let decoded = M::decode(message.value.as_slice());
        decoded.map(Some).map_err(|error| Failure::new(format!("the daemon's stream: {error}")))
    }
}

/// Carries an image from `source` to `destination`, telling of it on `progress`.
pub(crate) async fn transfer(
    daemon: &Daemon,
    source: Any,
    destination: Any,
    progress: String,
) -> Outcome<()> {
    let request = TransferRequest {
        source: Some(source),
        destination: Some(destination),
        options: Some(TransferOptions { progress_stream: progress }),
    };
    daemon.transfer().await?.transfer(request).await?;
    Ok(())
}

/// A message of any type.
pub(crate) fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Sends a message. That nobody listens any more is told where answers are read.
async fn send<M: Message + Name>(outgoing: &mpsc::Sender<Any>, message: &M) {
    let _ = outgoing.send(any(message)).await;
}

/// An id that no other stream has.
fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("berth-{}-{time:x}-{count}", std::process::id())
}
