//! Stores on a scratch directory, and a puller over them.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_content::ContentStore;
use berth_metadata::{Metadata, Scope};
use berth_proto::containerd::services::images::v1::Image;
use berth_pull::{Blobs, ImportRequest, Progress, PullRequest, Puller, Reclaim};
use berth_registry::{Client, Config, Credentials, Patience};
use berth_snapshotter::{Erofs, Info, Overlay, Snapshotter};
use berth_store::Store;
use berth_types::{Platform, Result};
use rustix::mount::UnmountFlags;
use tempfile::TempDir;

/// The snapshotter under test, which the environment may name: `erofs`, or `overlayfs`.
pub(crate) fn snapshotter() -> &'static str {
    match std::env::var("SNAPSHOTTER").as_deref() {
        Ok("overlayfs") => "overlayfs",
        _ => "erofs",
    }
}

pub(crate) const NAMESPACE: &str = "default";

pub(crate) struct Fixture {
    pub(crate) metadata: Metadata,
    pub(crate) content: ContentStore,
    pub(crate) puller: Puller,
    #[allow(dead_code, reason = "not every test that shares this asks")]
    pub(crate) blobs: Blobs,
    path: PathBuf,
    root: Option<TempDir>,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(Blobs::Keep).await
    }

    #[allow(dead_code, reason = "not every test that shares this discards")]
    pub(crate) async fn discarding() -> Self {
        Self::with(Blobs::Discard).await
    }

    async fn with(blobs: Blobs) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut fixture = Self::open(root.path(), blobs).await;
        fixture.root = Some(root);
        fixture
    }

    pub(crate) async fn open(root: &Path, blobs: Blobs) -> Self {
        let store = Store::open(&root.join("berth.db")).unwrap();
        let content = ContentStore::open(root).unwrap();
        let snapshots = root.join("snapshots");
        let snapshotter: Arc<dyn Snapshotter> = match snapshotter() {
            "erofs" => Arc::new(Erofs::open(&snapshots, store.clone()).unwrap()),
            _ => Arc::new(Overlay::open(&snapshots, store.clone()).unwrap()),
        };
        let all = vec![snapshotter];
        let metadata = Metadata::open(store, content.clone(), all, None).await.unwrap();
        let patience =
            Patience { attempts: 2, first_pause: Duration::from_millis(5), ..Patience::default() };
        let client = Client::new(Config { patience, ..Config::default() });
        let collected = metadata.clone();
        let reclaim: Reclaim = Arc::new(move || {
            let metadata = collected.clone();
            // On a full disk it may fail, as in the daemon, where the next one makes up for it.
            Box::pin(async move { drop(metadata.collect().await) })
        });
        let puller = Puller::new(metadata.clone(), client, reclaim, blobs);
        puller.recover().await.unwrap();
        Self { metadata, content, puller, blobs, path: root.to_owned(), root: None }
    }

    #[allow(dead_code, reason = "not every test that shares this looks there")]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) async fn pull(&self, reference: &str) -> Result<Image> {
        self.pull_for(NAMESPACE, reference, "linux/amd64").await
    }

    pub(crate) async fn pull_for(
        &self,
        namespace: &str,
        reference: &str,
        platform: &str,
    ) -> Result<Image> {
        let request = request(namespace, reference, platform);
        self.puller.pull(request, Progress::silent()).await
    }

    pub(crate) async fn import(&self, archive: Vec<u8>) -> Result<Vec<Image>> {
        let request = ImportRequest {
            namespace: NAMESPACE.to_owned(),
            platform: "linux/amd64".parse().unwrap(),
            snapshotter: snapshotter().to_owned(),
        };
        self.puller.import(request, Cursor::new(archive), Progress::silent()).await
    }

    pub(crate) fn scope(&self, namespace: &str) -> Scope {
        self.metadata.scope(namespace, None).unwrap()
    }

    pub(crate) async fn snapshots(&self) -> Vec<Info> {
        let scope = self.scope(NAMESPACE);
        scope.snapshots(snapshotter()).unwrap().list(&[]).await.unwrap()
    }

    /// Asserts that a failed operation left nothing once garbage is collected.
    pub(crate) async fn assert_empty(&self) {
        let scope = self.scope(NAMESPACE);
        assert_eq!(scope.images().list(&[]).unwrap(), []);
        assert_eq!(scope.leases().list(&[]).unwrap(), []);
        self.metadata.collect().await.unwrap();
        assert_eq!(scope.content().list(&[]).unwrap(), []);
        assert_eq!(self.snapshots().await, []);
        let mut blobs = Vec::new();
        self.content
            .walk(|info| {
                blobs.push(info);
                Ok(())
            })
            .unwrap();
        assert_eq!(blobs, []);
        assert_eq!(self.content.statuses(|_| true).unwrap(), []);
    }
}

/// Layers stay mounted for the snapshots that a test leaves.
impl Drop for Fixture {
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
        let below = |target: &&str| {
            Path::new(target).starts_with(&self.path) && Path::new(target) != self.path
        };
        for target in targets.filter(below) {
            let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
        }
    }
}

pub(crate) fn request(namespace: &str, reference: &str, platform: &str) -> PullRequest {
    PullRequest {
        name: None,
        namespace: namespace.to_owned(),
        reference: reference.parse().unwrap(),
        platform: platform.parse::<Platform>().unwrap(),
        credentials: Credentials::Anonymous,
        snapshotter: snapshotter().to_owned(),
    }
}
