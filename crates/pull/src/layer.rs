//! One layer: its blob brought into the content store, and its files into a directory.

use std::path::PathBuf;

use berth_metadata::ContentWriter;
use berth_types::labels::UNCOMPRESSED;
use berth_types::{Error, Kind, Result, ResultExt};
use bytes::Bytes;
use tokio::sync::mpsc::{self, Sender};

use crate::blocking;
use crate::progress::Phase;
use crate::record::{self, BlobLabels};
use crate::resolved::Layer;
use crate::session::Session;
use crate::stream::{Outcome, Tee, apply_alone};

/// Pieces of a response that may wait to be unpacked. Each has up to a few dozen kilobytes.
const PIECES: usize = 64;

impl Session {
    /// Brings the blob of `layer` into the content store.
    pub(crate) async fn fetch(&self, layer: &Layer) -> Result<()> {
        let _alone = self.puller.blobs().lock(layer.blob.digest.clone()).await;
        if self.has_layer(layer).await? {
            self.progress.tell(&layer.blob, Phase::Exists, layer.blob.size);
            return Ok(());
        }
        let writer = self.complete(self.writer(&layer.blob).await?, layer).await?;
        self.commit(writer, &layer.blob, uncompressed(layer)).await?;
        self.progress.tell(&layer.blob, Phase::Done, layer.blob.size);
        Ok(())
    }

    /// The same, and makes the files of the layer in the empty directory `to`.
    pub(crate) async fn fetch_and_apply(&self, layer: &Layer, to: PathBuf) -> Result<Outcome> {
        let blob = &layer.blob;
        {
            let _alone = self.puller.blobs().lock(blob.digest.clone()).await;
            if !self.has_layer(layer).await? {
                let writer = self.writer(blob).await?;
                if writer.status().offset == 0 && blob.size > 0 {
                    return self.stream(writer, layer, to).await;
                }
                // What an earlier try stored is not read twice: the rest is fetched first.
                let writer = self.complete(writer, layer).await?;
                self.commit(writer, blob, uncompressed(layer)).await?;
            }
        }
        self.apply_stored(layer, to).await
    }

    /// Fetches, stores and applies in one pass.
    async fn stream(&self, writer: ContentWriter, layer: &Layer, to: PathBuf) -> Result<Outcome> {
        let done = self.transfer(writer, layer, move |tee| tee.apply(&to)).await;
        let (writer, outcome) = self.drop_on_error(layer, done).await?;
        let checked = check(layer, &outcome);
        self.drop_on_error(layer, checked).await?;
        self.commit(writer, &layer.blob, uncompressed(layer)).await?;
        Ok(outcome)
    }

    /// Fetches what `writer` lacks, which may be nothing.
    async fn complete(&self, writer: ContentWriter, layer: &Layer) -> Result<ContentWriter> {
        if writer.status().offset == layer.blob.size {
            return Ok(writer);
        }
        let done = self.transfer(writer, layer, Tee::store).await;
        self.drop_on_error(layer, done).await
    }

    /// Feeds the rest of a blob to `sink`, which runs on a thread of its own.
    async fn transfer<T: Send + 'static>(
        &self,
        writer: ContentWriter,
        layer: &Layer,
        sink: impl FnOnce(Tee) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.puller.downloads().acquire().await.map_err(closed)?;
        let (sender, receiver) = mpsc::channel(PIECES);
        let offset = writer.status().offset;
        let tee = Tee::new(receiver, writer, layer.blob.size);
        let thread = tokio::spawn(blocking(move || sink(tee)));
        let sent = self.send(layer, offset, sender).await;
        // Not before the thread has ended: it works in the snapshot's directory.
        let stored = thread
            .await
            .map_err(|error| Error::internal(format!("a layer's thread failed: {error}")))?;
        sent.and(stored)
    }

    /// Reads the blob from the registry. Ends early when the thread does, which knows why.
    async fn send(&self, layer: &Layer, offset: u64, sender: Sender<Bytes>) -> Result<()> {
        let blob = &layer.blob;
        let mut stream = self.repository_for(&blob.digest)?.blob(blob, offset);
        let mut received = offset;
        loop {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(stopped()),
                next = stream.next() => next?,
            };
            let Some(bytes) = next else { break };
            received += bytes.len() as u64;
            self.progress.tell(blob, Phase::Downloading, received);
            if sender.send(bytes).await.is_err() {
                return Ok(());
            }
        }
        self.progress.tell(blob, Phase::Extracting, received);
        Ok(())
    }

    /// Makes the files of a layer whose blob is there.
    async fn apply_stored(&self, layer: &Layer, to: PathBuf) -> Result<Outcome> {
        let _turn = self.puller.unpacks().acquire().await.map_err(closed)?;
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        self.progress.tell(&layer.blob, Phase::Extracting, layer.blob.size);
        let (scope, layer) = (self.scope.clone(), layer.clone());
        blocking(move || {
            let archive = scope.content().reader(&layer.blob.digest)?.file;
            let outcome = apply_alone(archive, &to)
                .context(|| format!("unpack layer {}", layer.blob.digest))?;
            check(&layer, &outcome)?;
            Ok(outcome)
        })
        .await
    }

    async fn has_layer(&self, layer: &Layer) -> Result<bool> {
        let found = self.has(&layer.blob.digest).await?;
        if found {
            record::label(&self.scope, &layer.blob.digest, uncompressed(layer)).await?;
        }
        Ok(found)
    }

    async fn drop_on_error<T>(&self, layer: &Layer, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.give_up(&layer.blob.digest, error).await;
        }
        result.context(|| format!("layer {}", layer.blob.digest))
    }
}

/// The failure of a layer that was stopped because another one failed.
fn stopped() -> Error {
    Error::new(Kind::Cancelled, "stopped, since another layer failed")
}

fn closed(_: tokio::sync::AcquireError) -> Error {
    Error::internal("the queue of layers is closed")
}

fn uncompressed(layer: &Layer) -> BlobLabels {
    [(UNCOMPRESSED.to_owned(), layer.diff_id.to_string())].into()
}

/// Compares what a layer unpacked to with what the image's configuration says.
pub(crate) fn check(layer: &Layer, outcome: &Outcome) -> Result<()> {
    match outcome {
        Outcome::Applied(applied) if applied.diff_id != layer.diff_id => {
            Err(Error::failed_precondition(format!(
                "layer {} unpacks to {}, the image's config says {}: the image is broken",
                layer.blob.digest, applied.diff_id, layer.diff_id
            )))
        }
        _ => Ok(()),
    }
}
