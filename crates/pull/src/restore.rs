//! Blobs of layers that were discarded, made again for who needs them.
//!
//! They come from what is nearest: from the layer's image, if it holds its archive and the blob is
//! that, or what a known encoder makes of it; else from where the layer came from. What is not the
//! blob with the right digest never becomes one. A lease keeps a blob that came back as long as it is
//! needed; then it is garbage again.

use std::io::{self, Write};

use berth_archive::Encoding;
use berth_erofs::Archive;
use berth_metadata::{ContentWriter, Scope, WriterRequest};
use berth_registry::Credentials;
use berth_types::image::{Descriptor, Document, ImageConfig, Manifest, media_type};
use berth_types::labels::UNCOMPRESSED;
use berth_types::{Error, Kind, Platform, Reference, Result, ResultExt};

use crate::blocking;
use crate::discard::{archive, encoding, is_there, sources};
use crate::layer::closed;
use crate::progress::Progress;
use crate::puller::Puller;
use crate::resolved::{Layer, Resolved, read_small};
use crate::session::{Policy, ingest};

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 3;

/// Who asks registries for what is missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login {
    /// A registry, as references name it.
    pub(crate) domain: String,
    /// What its user gave for it; others are asked as the daemon is configured.
    pub(crate) credentials: Credentials,
}

impl Puller {
    /// Does `work` while the blobs of all layers of the images at `targets`, of those for
    /// `platforms` or all, are in the content store, as far as the images are there. Goes on when
    /// the caller gives up.
    ///
    /// # Errors
    /// [`Kind::FailedPrecondition`] when a layer was discarded and can't be had again,
    /// [`Kind::DataLoss`] when its image is damaged; those of `work`.
    pub async fn with_layers<T: Send + 'static, F>(
        &self,
        namespace: &str,
        targets: Vec<Descriptor>,
        platforms: Vec<Platform>,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (this, namespace) = (self.clone(), namespace.to_owned());
        let purpose = format!("export {}", digests(&targets));
        let done = async move {
            let restored = async |scope: Scope| {
                for target in &targets {
                    let documents = this.restore_all(&scope, target, &platforms, 0);
                    this.unless_stopped(documents).await?;
                }
                work().await
            };
            let done = this.leases().with(this.metadata(), &namespace, &purpose, restored).await?;
            this.give_space_back().await;
            Ok(done)
        };
        self.run(done).await
    }

    /// Sees to it that all layers of what is there of a manifest or index have their blobs.
    async fn restore_all(
        &self,
        scope: &Scope,
        described: &Descriptor,
        platforms: &[Platform],
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DEPTH || !is_there(scope, described)? {
            return Ok(());
        }
        let bytes = read_small(scope, &described.digest)?;
        match Document::parse(&described.media_type, &bytes)? {
            Document::Index(index) => {
                for manifest in index.chosen(platforms) {
                    Box::pin(self.restore_all(scope, &manifest, platforms, depth + 1)).await?;
                }
                Ok(())
            }
            Document::Manifest(manifest) => {
                let Some(image) = resolve(scope, described, *manifest)? else { return Ok(()) };
                for position in 0..image.layers.len() {
                    self.restore(scope, &image, position, &Login::default()).await?;
                }
                Ok(())
            }
        }
    }

    /// Sees to it that a layer has its blob, which the lease keeps.
    ///
    /// # Errors
    /// As for [`with_layers`](Self::with_layers).
    pub(crate) async fn restore(
        &self,
        scope: &Scope,
        image: &Resolved,
        position: usize,
        login: &Login,
    ) -> Result<()> {
        let layer = &image.layers[position];
        match scope.content().adopt(&layer.blob.digest).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
        let labels = scope.content().info(&image.manifest.digest)?.labels;
        let nearest = self.remake(scope, layer, encoding(&labels, layer)).await;
        let mut failure = match nearest {
            Err(error) if !ends(&error) => error,
            done => return done,
        };
        for source in sources(&labels) {
            match self.fetch_from(scope, layer, &source, login).await {
                Err(error) if !ends(&error) => failure = and(failure, error),
                done => return done,
            }
        }
        Err(failure.context(format!(
            "layer {} has no blob here, as after discard_unpacked_layers, and it can't be had again \
             (pull the image anew where its registry can be reached, with that option off)",
            layer.blob.digest
        )))
    }

    /// Makes a blob of what its layer's image holds.
    async fn remake(&self, scope: &Scope, layer: &Layer, encoding: Option<Encoding>) -> Result<()> {
        let Some(archive) = archive(scope, layer).await? else {
            return Err(Error::failed_precondition("no image of it is kept that could be packed"));
        };
        let Some(encoding) = encoding else {
            return Err(Error::failed_precondition("it is not known how it was compressed"));
        };
        let blob = &layer.blob;
        let _alone = self.blobs().lock(blob.digest.clone()).await;
        let request = WriterRequest {
            reference: ingest(&blob.digest),
            total: blob.size,
            expected: Some(blob.digest.clone()),
        };
        let writer = match scope.content().writer(request).await {
            Err(error) if error.kind() == Kind::AlreadyExists => return Ok(()),
            writer => writer?,
        };
        let _turn = self.unpacks().acquire().await.map_err(closed)?;
        let size = blob.size;
        let made = blocking(move || pack(archive, encoding, writer, size)).await;
        let labels = [(UNCOMPRESSED.to_owned(), layer.diff_id.to_string())].into();
        let committed = match made {
            Ok(writer) => writer.commit(size, Some(blob.digest.clone()), labels).await,
            Err(error) => Err(error),
        };
        match committed {
            Err(error) if error.kind() != Kind::AlreadyExists => {
                if let Err(error) = scope.content().abort(&ingest(&blob.digest)).await {
                    tracing::warn!(%error, digest = %blob.digest, "a part of a blob is left behind");
                }
                Err(error.context("pack it again"))
            }
            _ => Ok(()),
        }
    }

    /// Fetches a blob from the repository `source`: a registry and a path.
    async fn fetch_from(
        &self,
        scope: &Scope,
        layer: &Layer,
        source: &str,
        login: &Login,
    ) -> Result<()> {
        let reference = source.parse::<Reference>()?;
        let given = match reference.domain() == login.domain {
            true => login.credentials.clone(),
            false => Credentials::Anonymous,
        };
        let repository = self.client().repository(&reference, given);
        let session =
            self.session(scope, Some(repository), String::new(), Progress::silent(), Policy::Keep);
        session.fetch(layer).await.context(|| format!("fetch it from {source}"))
    }
}

/// The image of a manifest; `None` for what is none, or has no configuration here.
pub(crate) fn resolve(
    scope: &Scope,
    described: &Descriptor,
    manifest: Manifest,
) -> Result<Option<Resolved>> {
    if !media_type::is_config(&manifest.config.media_type) || !is_there(scope, &manifest.config)? {
        return Ok(None);
    }
    let config = ImageConfig::parse(&read_small(scope, &manifest.config.digest)?)?;
    match Resolved::new(described, manifest, config) {
        // Layers that can't be unpacked were not discarded either.
        Err(error) if error.kind() == Kind::Unimplemented => Ok(None),
        image => image.map(Some),
    }
}

/// Writes the blob of an archive in place of what was there of it.
fn pack(
    archive: Archive,
    encoding: Encoding,
    mut writer: ContentWriter,
    blob_size: u64,
) -> Result<ContentWriter> {
    if writer.status().offset == blob_size && blob_size > 0 {
        // Another namespace has it.
        return Ok(writer);
    }
    writer.truncate(0)?;
    let size = archive.size();
    encoding.encode(archive, size, Sink(writer)).map(|sink| sink.0)
}

/// A writer of content, as one of bytes.
struct Sink(ContentWriter);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether it makes no sense to try otherwise after `error`.
fn ends(error: &Error) -> bool {
    matches!(error.kind(), Kind::Cancelled | Kind::ResourceExhausted)
}

/// Both failures; a damage is what it is, whatever came after.
fn and(first: Error, then: Error) -> Error {
    let told = format!("{}; {then}", first.message());
    match first.kind() {
        Kind::DataLoss => Error::data_loss(told),
        _ => Error::failed_precondition(told),
    }
}

fn digests(targets: &[Descriptor]) -> String {
    targets.iter().map(|target| target.digest.as_str()).collect::<Vec<_>>().join(" ")
}
