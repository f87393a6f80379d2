//! The progress of a transfer, told on a stream that the client has opened.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use berth_proto::containerd::types::Descriptor;
use berth_proto::containerd::types::transfer::Progress as Message;
use berth_pull::{LayerProgress, Phase, Progress};
use berth_types::{Result, image};

use super::super::streaming::Stream;

/// A client that is told, or none.
pub(super) struct Reporter(Option<Arc<Board>>);

/// What the client has not been told yet.
struct Board {
    news: Mutex<Vec<Message>>,
    any: Notify,
    ended: CancellationToken,
}

impl Reporter {
    /// Tells the client of `stream`, as fast as it reads, until the reporter is dropped.
    pub(super) fn on(stream: Option<Stream>) -> Self {
        Self(stream.map(|stream| {
            let board = Arc::new(Board {
                news: Mutex::default(),
                any: Notify::new(),
                ended: CancellationToken::new(),
            });
            tokio::spawn(board.clone().tell(stream));
            board
        }))
    }

    /// What a pull tells of its layers.
    pub(super) fn layers(&self) -> Progress {
        match self.0.clone() {
            Some(board) => Progress::new(move |layer| board.note(of_layer(&layer))),
            None => Progress::silent(),
        }
    }

    /// Tells of something that is at its place now.
    pub(super) fn arrived(&self, event: &str, name: &str, described: &image::Descriptor) {
        if let Some(board) = &self.0 {
            let size = i64::try_from(described.size).unwrap_or(i64::MAX);
            board.note(Message {
                event: event.to_owned(),
                name: name.to_owned(),
                progress: size,
                total: size,
                desc: Some(Descriptor {
                    media_type: described.media_type.clone(),
                    digest: described.digest.to_string(),
                    size,
                    ..Descriptor::default()
                }),
                ..Message::default()
            });
        }
    }

    /// Tells of something that has no size.
    pub(super) fn event(&self, event: &str, name: &str) {
        if let Some(board) = &self.0 {
            board.note(Message {
                event: event.to_owned(),
                name: name.to_owned(),
                ..Message::default()
            });
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(board) = &self.0 {
            board.ended.cancel();
        }
    }
}

impl Board {
    /// Keeps a message; a newer one about the same thing takes the place of an older one.
    fn note(&self, message: Message) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        match news.iter_mut().find(|known| known.desc.is_some() && known.name == message.name) {
            Some(known) => *known = message,
            None => news.push(message),
        }
        self.any.notify_one();
    }

    /// Sends messages until there are to be no more, or the client is gone.
    async fn tell(self: Arc<Self>, stream: Stream) -> Result<()> {
        loop {
            let last = tokio::select! {
                () = self.any.notified() => false,
                () = self.ended.cancelled() => true,
            };
            let news =
                std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
            for message in news {
                stream.send(&message).await?;
            }
            if last {
                return Ok(());
            }
        }
    }
}

/// The words are containerd's.
fn of_layer(layer: &LayerProgress) -> Message {
    let event = match layer.phase {
        Phase::Waiting => "waiting",
        Phase::Downloading => "downloading",
        Phase::Uploading => "uploading",
        Phase::Extracting => "extracting",
        Phase::Done => "complete",
        Phase::Exists => "already exists",
    };
    let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    let digest = layer.digest.to_string();
    Message {
        event: event.to_owned(),
        name: format!("layer-{digest}"),
        parents: Vec::new(),
        progress: number(layer.current),
        total: number(layer.total),
        desc: Some(Descriptor { digest, size: number(layer.total), ..Descriptor::default() }),
    }
}
