//! The entrance: pull, unpack, import.

use std::sync::Arc;

use berth_metadata::{Metadata, Scope};
use berth_proto::containerd::services::images::v1::Image;
use berth_registry::{Client, Credentials, Repository};
use berth_sys::malloc;
use berth_types::image::Descriptor;
use berth_types::{Digest, Error, Platform, Reference, Result, ResultExt};
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::downloads::Downloads;
use crate::lease::Leases;
use crate::locks::Locks;
use crate::progress::Progress;
use crate::record;
use crate::resolved::Resolved;
use crate::session::{Policy, Session};

/// The fewest and the most layers that are fetched from a registry at the same time, over all
/// operations. In between it is one for each processor, because a layer is unpacked as it is
/// fetched.
const DOWNLOADS: (usize, usize) = (3, 8);

/// What collects garbage at once, for when space is needed.
pub type Reclaim = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What becomes of the blobs of layers when a pull has unpacked them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blobs {
    /// They stay.
    #[default]
    Keep,
    /// They are garbage, unless something else refers to them. What needs one later makes it
    /// again, or fetches it again.
    Discard,
}

/// Brings images into the stores. Clones share locks and limits.
#[derive(Clone)]
pub struct Puller {
    shared: Arc<Shared>,
}

struct Shared {
    metadata: Metadata,
    client: Client,
    of_pulls: Blobs,
    leases: Leases,
    blobs: Locks<Digest>,
    chains: Locks<(String, String, Digest)>,
    downloads: Downloads,
    unpacks: Semaphore,
    operations: TaskTracker,
    stop: CancellationToken,
}

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// Whose image it will be.
    pub namespace: String,
    /// Which image; without tag and digest, the one tagged `latest`.
    pub reference: Reference,
    /// What the image will be called, if not as the reference says.
    pub name: Option<String>,
    /// For which platform.
    pub platform: Platform,
    /// On whose behalf.
    pub credentials: Credentials,
    /// The snapshotter that unpacks it.
    pub snapshotter: String,
}

/// What is to be imported from an archive.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// Whose images they will be.
    pub namespace: String,
    /// For which platform they are unpacked.
    pub platform: Platform,
    /// The snapshotter that unpacks them.
    pub snapshotter: String,
}

impl Puller {
    /// Brings images into the stores behind `metadata`, with `client` to reach registries; `blobs`
    /// says what becomes of those of layers.
    pub fn new(metadata: Metadata, client: Client, reclaim: Reclaim, blobs: Blobs) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            shared: Arc::new(Shared {
                metadata,
                client,
                of_pulls: blobs,
                leases: Leases::new(reclaim),
                blobs: Locks::new(),
                chains: Locks::new(),
                downloads: Downloads::new(processors.clamp(DOWNLOADS.0, DOWNLOADS.1)),
                unpacks: Semaphore::new(processors),
                operations: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        }
    }

    /// Removes what operations of an earlier process left half done. For the start, before any
    /// operation of this one.
    ///
    /// # Errors
    /// Those of the stores.
    pub async fn recover(&self) -> Result<()> {
        let recovered = self.shared.leases.recover(&self.shared.metadata).await;
        recovered.context(|| "remove what an interrupted pull left")
    }

    /// Ends all operations, those that come later too, and waits until they have ended. They fail
    /// with [`Kind::Cancelled`](berth_types::Kind::Cancelled); the next process goes on with what
    /// they fetched.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.operations.close();
        self.shared.operations.wait().await;
    }

    /// Fetches and unpacks an image; what is there already is not fetched again. It goes on when
    /// the caller gives up. Returns the image's record, which is on the disk.
    ///
    /// # Errors
    /// Those of [`Repository::resolve`]; [`Kind::NotFound`](berth_types::Kind::NotFound) when
    /// there is nothing for the platform, naming those that there are;
    /// [`Kind::FailedPrecondition`](berth_types::Kind::FailedPrecondition) when bytes are not what
    /// their digest says; [`Kind::ResourceExhausted`](berth_types::Kind::ResourceExhausted) when
    /// the disk is full.
    pub async fn pull(&self, request: PullRequest, progress: Progress) -> Result<Image> {
        let this = self.clone();
        let what = request.reference.familiar();
        let work = async move {
            let pulled = this.run_pull(request, progress).await;
            // Its buffers are no longer needed.
            tokio::task::spawn_blocking(malloc::give_back);
            pulled
        };
        self.run(work).await.context(|| format!("pull {what}"))
    }

    async fn run_pull(&self, request: PullRequest, progress: Progress) -> Result<Image> {
        let reference = request.reference.canonical();
        let repository = self.shared.client.repository(&reference, request.credentials);
        let target = self.unless_stopped(repository.resolve(&reference)).await?;
        let PullRequest { namespace, name, platform, snapshotter, .. } = request;
        let name = name.unwrap_or_else(|| reference.to_string());
        let purpose = format!("pull {reference} for {platform}");
        let leases = &self.shared.leases;
        let policy = self.policy_of_pulls();
        let image = leases
            .with(&self.shared.metadata, &namespace, &purpose, async |scope| {
                let mut session =
                    self.session(&scope, Some(repository), snapshotter, progress, policy);
                session.realize(&target, &platform).await?;
                self.name(&namespace, &name, &target).await
            })
            .await?;
        self.give_space_back().await;
        Ok(image)
    }

    /// What becomes of the blobs of images that are pulled.
    pub(crate) fn policy_of_pulls(&self) -> Policy {
        match self.shared.of_pulls {
            Blobs::Keep => Policy::Keep,
            Blobs::Discard => Policy::Discard,
        }
    }

    /// Collects blobs that are discarded now: what comes next may need the space.
    pub(crate) async fn give_space_back(&self) {
        if self.shared.of_pulls == Blobs::Discard {
            self.shared.leases.reclaim().await;
        }
    }

    /// Unpacks the image at `target`, whose content is there, and lets its config keep the
    /// snapshots. Goes on when the caller gives up.
    ///
    /// # Errors
    /// [`Kind::NotFound`](berth_types::Kind::NotFound) when content is missing or there is nothing
    /// for `platform`; [`Kind::FailedPrecondition`](berth_types::Kind::FailedPrecondition) when a
    /// layer is missing and can't be made or fetched again; else as [`Puller::pull`].
    pub async fn unpack(
        &self,
        namespace: &str,
        target: &Descriptor,
        platform: &Platform,
        snapshotter: &str,
        progress: Progress,
    ) -> Result<Resolved> {
        let (this, what) = (self.clone(), target.digest.clone());
        let (namespace, snapshotter) = (namespace.to_owned(), snapshotter.to_owned());
        let (target, platform) = (target.clone(), platform.clone());
        let work = async move {
            let purpose = format!("unpack {} for {platform}", target.digest);
            let (leases, metadata) = (&this.shared.leases, &this.shared.metadata);
            leases
                .with(metadata, &namespace, &purpose, async |scope| {
                    let mut session =
                        this.session(&scope, None, snapshotter, progress, Policy::Leave);
                    session.realize(&target, &platform).await
                })
                .await
        };
        self.run(work).await.context(|| format!("unpack {what}"))
    }

    /// Runs an operation to its end, even when the returned future is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let done = self.shared.operations.spawn(operation).await;
        done.unwrap_or_else(|error| Err(Error::internal(format!("the operation failed: {error}"))))
    }

    /// Gives `work`, which leaves nothing half done, up when all operations are to end.
    pub(crate) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.shared.stop.cancelled() => Err(Error::cancelled("the daemon stops")),
        }
    }

    pub(crate) fn session(
        &self,
        scope: &Scope,
        repository: Option<Repository>,
        snapshotter: String,
        progress: Progress,
        policy: Policy,
    ) -> Session {
        let (puller, scope) = (self.clone(), scope.clone());
        let stop = self.shared.stop.child_token();
        let registry = repository.as_ref().map_or("", Repository::domain);
        let downloads = self.shared.downloads.from(registry);
        Session { puller, scope, repository, snapshotter, policy, progress, downloads, stop }
    }

    /// Writes the image record, last and to the disk, and with it all that it needs.
    pub(crate) async fn name(
        &self,
        namespace: &str,
        name: &str,
        target: &Descriptor,
    ) -> Result<Image> {
        let scope = self.shared.metadata.scope(namespace, None)?;
        record::name(&scope, name, target).await
    }

    pub(crate) fn client(&self) -> &Client {
        &self.shared.client
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.shared.metadata
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.shared.leases
    }

    /// Who fetches which blob.
    pub(crate) fn blobs(&self) -> &Locks<Digest> {
        &self.shared.blobs
    }

    /// Who builds which chain: namespace, snapshotter and its lowest missing snapshot. Whoever
    /// needs any snapshot above that one needs that one too.
    pub(crate) fn chains(&self) -> &Locks<(String, String, Digest)> {
        &self.shared.chains
    }

    pub(crate) fn unpacks(&self) -> &Semaphore {
        &self.shared.unpacks
    }
}
