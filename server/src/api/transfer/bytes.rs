//! Bytes through a client's stream. Whoever receives says how many bytes may be under way, with
//! messages `WindowUpdate`; whoever sends does so in messages `Data`.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use berth_proto::containerd::types::transfer::{Data, WindowUpdate};
use berth_types::{Error, Result};

use super::super::streaming::Stream;

/// How many bytes a client may send ahead.
const WINDOW: i32 = 4 << 20;

/// Messages that are handed over at a time.
const AHEAD: usize = 4;

/// The largest message that is sent.
const CHUNK: usize = 1 << 20;

/// What a client sends, for a thread that may block.
pub(super) struct Receiver {
    chunks: mpsc::Receiver<Result<Bytes>>,
    rest: Bytes,
}

/// Takes what the client sends until it ends its side.
pub(super) fn receive(stream: Stream) -> Receiver {
    let (sender, chunks) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        if let Err(error) = pass_on(stream, &sender).await {
            // The reader may be gone.
            sender.send(Err(error)).await.ok();
        }
    });
    Receiver { chunks, rest: Bytes::new() }
}

async fn pass_on(mut stream: Stream, chunks: &mpsc::Sender<Result<Bytes>>) -> Result<()> {
    stream.send(&WindowUpdate { update: WINDOW }).await?;
    while let Some(Data { data }) = stream.next().await? {
        let update = i32::try_from(data.len())
            .map_err(|_| Error::invalid_argument("a message has more bytes than a window"))?;
        if chunks.send(Ok(data.into())).await.is_err() {
            return Ok(());
        }
        // A client that has sent everything need not listen any more.
        stream.send(&WindowUpdate { update }).await.ok();
    }
    Ok(())
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// What a client is sent, from a thread that may block. Dropped, it ends the stream.
pub(super) struct Sender {
    chunks: mpsc::Sender<Bytes>,
}

/// Sends the client as much as its windows allow.
pub(super) fn send(stream: Stream) -> Sender {
    let (sender, chunks) = mpsc::channel(AHEAD);
    // When the client leaves, the channel closes and the writer hears of it.
    tokio::spawn(send_all(stream, chunks));
    Sender { chunks: sender }
}

async fn send_all(mut stream: Stream, mut chunks: mpsc::Receiver<Bytes>) -> Result<()> {
    let mut window = 0;
    while let Some(mut chunk) = chunks.recv().await {
        while !chunk.is_empty() {
            while window == 0 {
                let update = stream.next::<WindowUpdate>().await?;
                let update = update.ok_or_else(|| Error::cancelled("the client reads no more"))?;
                window += usize::try_from(update.update).unwrap_or_default();
            }
            let data = chunk.split_to(chunk.len().min(window).min(CHUNK));
            window -= data.len();
            stream.send(&Data { data: data.to_vec() }).await?;
        }
    }
    Ok(())
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.chunks.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has left"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
