//! One layer: its blob brought into the content store, and its files into a directory or an image.

use std::io::Read;

use berth_metadata::ContentWriter;
use berth_types::labels::UNCOMPRESSED;
use berth_types::{Error, Kind, Result, ResultExt};
use bytes::Bytes;
use tokio::sync::mpsc::{self, Sender};

use crate::blocking;
use crate::discard::archive;
use crate::progress::Phase;
use crate::record::{self, BlobLabels};
use crate::resolved::Layer;
use crate::session::{Session, is_missing};
use crate::stream::{Outcome, Stoppable, Target, Tee, stopped, unpack};

/// Pieces of a response that may wait to be unpacked. A fast registry's have up to 400 KiB each.
const PIECES: usize = 16;

impl Session {
    /// Brings the blob of `layer` into the content store.
    pub(crate) async fn fetch(&self, layer: &Layer) -> Result<()> {
        let blob = &layer.blob;
        let _alone = self.puller.blobs().lock(blob.digest.clone()).await;
        if self.has(&blob.digest).await? {
            self.progress.tell(blob, Phase::Exists, blob.size);
            return Ok(());
        }
        self.store(self.writer(blob).await?, layer).await?;
        self.progress.tell(blob, Phase::Done, blob.size);
        Ok(())
    }

    /// The same, and writes the layer to `target`.
    pub(crate) async fn fetch_and_unpack(&self, layer: &Layer, target: Target) -> Result<Outcome> {
        let blob = &layer.blob;
        {
            let _alone = self.puller.blobs().lock(blob.digest.clone()).await;
            if !self.has(&blob.digest).await? && self.repository.is_some() {
                let writer = self.writer(blob).await?;
                if writer.status().offset == 0 && blob.size > 0 {
                    return self.stream(writer, layer, target).await;
                }
                // What an earlier try stored is not read twice: the rest is fetched first.
                self.store(writer, layer).await?;
            }
        }
        self.unpack_stored(layer, target).await
    }

    /// Fetches, stores and unpacks in one pass.
    async fn stream(
        &self,
        writer: ContentWriter,
        layer: &Layer,
        target: Target,
    ) -> Result<Outcome> {
        let done = self.transfer(writer, layer, move |tee| tee.unpack(target)).await;
        let (writer, outcome) = self.drop_on_error(layer, done).await?;
        let labels = self.drop_on_error(layer, verify(layer, &outcome)).await?;
        self.commit(writer, &layer.blob, labels).await?;
        Ok(outcome)
    }

    /// Fetches what `writer` lacks of a blob, and makes a blob of it.
    async fn store(&self, writer: ContentWriter, layer: &Layer) -> Result<()> {
        let blob = &layer.blob;
        let resumed = writer.status().offset > 0;
        let writer = self.complete(writer, layer).await?;
        match self.commit(writer, blob, BlobLabels::new()).await {
            // What an earlier try had stored was damaged, and is dropped: now all of it.
            Err(error) if resumed && error.kind() == Kind::FailedPrecondition => {
                let writer = self.complete(self.writer(blob).await?, layer).await?;
                self.commit(writer, blob, BlobLabels::new()).await
            }
            done => done,
        }
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
        let _turn = self.downloads.acquire().await.map_err(closed)?;
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

    /// Writes a layer whose blob is there, or that another snapshotter has as an image, to `target`.
    pub(crate) async fn unpack_stored(&self, layer: &Layer, target: Target) -> Result<Outcome> {
        let _turn = self.puller.unpacks().acquire().await.map_err(closed)?;
        self.progress.tell(&layer.blob, Phase::Extracting, layer.blob.size);
        let (inner, stop) = (self.stored(layer).await?, self.stop.clone());
        let unpacked = blocking(move || unpack(Stoppable { inner, stop }, target));
        let what = || format!("unpack layer {}", layer.blob.digest);
        let outcome = unpacked.await.context(what)?;
        let labels = verify(layer, &outcome).context(what)?;
        match record::label(&self.scope, &layer.blob.digest, labels).await {
            Err(error) if error.kind() != Kind::NotFound => Err(error),
            _ => Ok(outcome),
        }
    }

    /// The blob of a layer, or the archive that is in it.
    async fn stored(&self, layer: &Layer) -> Result<Box<dyn Read + Send>> {
        let (scope, digest) = (self.scope.clone(), layer.blob.digest.clone());
        match blocking(move || scope.content().reader(&digest)).await {
            Ok(reader) => Ok(Box::new(reader.file)),
            Err(missing) if missing.kind() == Kind::NotFound => {
                match archive(&self.scope, layer).await? {
                    Some(archive) => Ok(Box::new(archive)),
                    None => Err(is_missing(&layer.blob.digest)),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn drop_on_error<T>(&self, layer: &Layer, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.give_up(&layer.blob.digest, error).await;
        }
        result.context(|| format!("layer {}", layer.blob.digest))
    }
}

pub(crate) fn closed(_: tokio::sync::AcquireError) -> Error {
    Error::internal("the queue of layers is closed")
}

/// Compares what a layer unpacked to with what the image's configuration says; returns the labels
/// of its blob that this proves.
fn verify(layer: &Layer, outcome: &Outcome) -> Result<BlobLabels> {
    match outcome {
        Outcome::Made(made) if *made.diff_id() != layer.diff_id => {
            Err(Error::failed_precondition(format!(
                "layer {} unpacks to {}, the image's config says {}: the image is broken",
                layer.blob.digest,
                made.diff_id(),
                layer.diff_id
            )))
        }
        Outcome::Made(_) => Ok([(UNCOMPRESSED.to_owned(), layer.diff_id.to_string())].into()),
        Outcome::NeedsLower(_) => Ok(BlobLabels::new()),
    }
}
