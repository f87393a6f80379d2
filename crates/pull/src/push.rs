//! Images to a registry.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::FileExt;

use berth_metadata::Scope;
use berth_registry::{Credentials, Repository};
use berth_types::image::{Descriptor, Document, media_type};
use berth_types::{Digest, Error, Kind, Platform, Reference, Result, ResultExt};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::discard::is_there;
use crate::progress::{Phase, Progress};
use crate::puller::Puller;
use crate::resolved::{Resolved, read, read_small};
use crate::restore::{Login, resolve};

/// Bytes that are sent at a time.
const CHUNK: usize = 1 << 20;

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 3;

/// What is to be pushed.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// Whose image it is.
    pub namespace: String,
    /// What it is.
    pub target: Descriptor,
    /// Where it goes, and by which tag; without one, as `latest`.
    pub reference: Reference,
    /// Which of an index' images go along; none means all.
    pub platforms: Vec<Platform>,
    /// On whose behalf.
    pub credentials: Credentials,
}

/// One push.
struct Push {
    scope: Scope,
    repository: Repository,
    puller: Puller,
    login: Login,
    platforms: Vec<Platform>,
    progress: Progress,
    /// What is there by now.
    sent: HashSet<Digest>,
}

impl Puller {
    /// Sends an image with everything that it consists of; what the repository has is not sent
    /// again, and what was discarded is made or fetched again. Of an index for several platforms
    /// that is here for some, only the image for this machine goes, unless platforms are named.
    /// Returns what the registry has by the reference now. Goes on when the caller gives up.
    ///
    /// # Errors
    /// `NotFound` when content of the image is missing; `FailedPrecondition` when a layer was
    /// discarded and can't be had again, `DataLoss` when its image is damaged; what [`Repository::push_blob`] and
    /// [`Repository::push_manifest`] return.
    pub async fn push(&self, request: PushRequest, progress: Progress) -> Result<Descriptor> {
        let what = request.reference.familiar();
        let this = self.clone();
        let work = async move { this.run_push(request, progress).await };
        self.run(work).await.context(|| format!("push {what}"))
    }

    async fn run_push(&self, request: PushRequest, progress: Progress) -> Result<Descriptor> {
        let reference = request.reference.canonical();
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) if *digest != request.target.digest => {
                return Err(Error::invalid_argument(format!(
                    "the image is {}, which can't be pushed as {digest}",
                    request.target.digest
                )));
            }
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let login = Login {
            domain: reference.domain().to_owned(),
            credentials: request.credentials.clone(),
        };
        let repository = self.client().repository(&reference, request.credentials);
        let (namespace, purpose) = (request.namespace, format!("push {reference}"));
        let push = async |scope| {
            let mut push = Push {
                scope,
                repository,
                puller: self.clone(),
                login,
                platforms: request.platforms,
                progress,
                sent: HashSet::new(),
            };
            let send = async {
                let target = push.whole(&request.target).await?;
                push.document(&target, &name, 0).await?;
                Ok(target)
            };
            self.unless_stopped(send).await
        };
        let pushed = self.leases().with(self.metadata(), &namespace, &purpose, push).await?;
        self.give_space_back().await;
        Ok(pushed)
    }
}

impl Push {
    /// What of an image can be pushed as one: a registry takes no index whose images it lacks.
    async fn whole(&self, target: &Descriptor) -> Result<Descriptor> {
        let bytes = read_small(&self.scope, &target.digest)?;
        let Document::Index(index) = Document::parse(&target.media_type, &bytes)? else {
            return Ok(target.clone());
        };
        for manifest in &index.manifests {
            if self.platforms.is_empty() && !is_there(&self.scope, manifest)? {
                return Ok(read(&self.scope, target, &Platform::host()).await?.manifest);
            }
        }
        Ok(target.clone())
    }

    /// Sends a manifest or index after what it names.
    async fn document(&mut self, described: &Descriptor, name: &str, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid_argument("image index is nested too deeply"));
        }
        let bytes = read_small(&self.scope, &described.digest)?;
        match Document::parse(&described.media_type, &bytes)? {
            Document::Index(index) => {
                for manifest in index.chosen(&self.platforms) {
                    let name = manifest.digest.to_string();
                    Box::pin(self.document(&manifest, &name, depth + 1)).await?;
                }
            }
            Document::Manifest(manifest) => {
                let image = resolve(&self.scope, described, (*manifest).clone())?;
                for (position, blob) in manifest.layers.iter().enumerate() {
                    // Who may pass such a layer on is somebody else.
                    if !media_type::is_foreign(&blob.media_type) {
                        self.blob(blob, image.as_ref().map(|image| (image, position))).await?;
                    }
                }
                self.blob(&manifest.config, None).await?;
            }
        }
        self.repository.push_manifest(name, &described.media_type, bytes).await
    }

    /// Sends a blob unless it is there; it is perhaps a layer of an image.
    async fn blob(&mut self, blob: &Descriptor, of: Option<(&Resolved, usize)>) -> Result<()> {
        if !self.sent.insert(blob.digest.clone()) {
            return Ok(());
        }
        if self.repository.has_blob(blob).await? {
            self.progress.tell(blob, Phase::Exists, blob.size);
            return Ok(());
        }
        if let Some((image, position)) = of {
            self.puller.restore(&self.scope, image, position, &self.login).await?;
        }
        let reader = self.scope.content().reader(&blob.digest)?;
        let (sender, chunks) = mpsc::channel(2);
        let (progress, told) = (self.progress.clone(), blob.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let mut offset = 0;
            while offset < reader.size {
                let length = usize::try_from(reader.size - offset).unwrap_or(CHUNK).min(CHUNK);
                let mut bytes = vec![0; length];
                let read = reader.file.read_exact_at(&mut bytes, offset);
                let failed = read.is_err();
                let chunk: io::Result<Bytes> = read.map(|()| bytes.into());
                // Whoever sends may have given up.
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
                offset += length as u64;
                progress.tell(&told, Phase::Uploading, offset);
            }
        });
        let sent = self.repository.push_blob(blob, chunks).await;
        reading.await.map_err(|error| Error::internal(format!("reading died: {error}")))?;
        match sent {
            // Somebody else has sent it meanwhile.
            Err(error) if error.kind() == Kind::AlreadyExists => {}
            sent => sent?,
        }
        self.progress.tell(blob, Phase::Done, blob.size);
        Ok(())
    }
}
