//! A snapshotter of another process, behind containerd's API: a proxy plugin.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use berth_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_proto::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info as WireInfo, ListSnapshotsRequest, MountsRequest,
    PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest,
    UsageRequest, ViewSnapshotRequest,
};
use berth_types::{Error, Kind, Result};

use crate::contract::{CommitOptions, Info, Mount, PrepareOptions, Relabel, Snapshotter, Usage};
use crate::wire;

/// How long a call may take: long enough for a tree that is measured or synced.
const DEADLINE: Duration = Duration::from_secs(120);

/// Which namespace a call without a key is in: the server need not know any.
const NAMESPACE: &str = "default";

/// The client of a snapshotter that another process serves.
pub struct Remote {
    name: &'static str,
    client: SnapshotsClient<Channel>,
}

impl Remote {
    /// The snapshotter that listens on the socket at `address`; clients choose it by `name`.
    /// Nothing is connected before the first call. Needs a tokio runtime.
    pub fn new(name: &str, address: &Path) -> Self {
        let address = address.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let address = address.clone();
            async move { UnixStream::connect(address).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost").timeout(DEADLINE);
        let channel = endpoint.connect_with_connector_lazy(connector);
        // Snapshotters live as long as the process.
        Self { name: name.to_owned().leak(), client: SnapshotsClient::new(channel) }
    }

    /// A call about `key`, in the namespace that it begins with.
    fn request<T>(&self, key: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let namespace = key.split_once('/').map_or(NAMESPACE, |(namespace, _)| namespace);
        if let Ok(value) = MetadataValue::try_from(namespace) {
            request.metadata_mut().insert("containerd-namespace", value);
        }
        request
    }

    fn snapshotter(&self) -> String {
        self.name.to_owned()
    }

    /// The error that the server's status stands for.
    fn failed(&self, status: Status) -> Error {
        let kind = Kind::from_code(status.code() as i32);
        Error::new(kind, status.message()).context(format!("snapshotter {}", self.name))
    }
}

#[async_trait]
impl Snapshotter for Remote {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn stat(&self, key: &str) -> Result<Info> {
        let request = StatSnapshotRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        let response = self.client.clone().stat(self.request(key, request)).await;
        let info = response.map_err(|status| self.failed(status))?.into_inner().info;
        Ok(wire::read_info(info.unwrap_or_default()))
    }

    async fn update(&self, key: &str, change: Relabel) -> Result<Info> {
        let mut labels = self.stat(key).await?.labels;
        change(&mut labels);
        let request = UpdateSnapshotRequest {
            snapshotter: self.snapshotter(),
            info: Some(WireInfo {
                name: key.to_owned(),
                labels: labels.into_iter().collect(),
                ..WireInfo::default()
            }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] }),
        };
        let response = self.client.clone().update(self.request(key, request)).await;
        let info = response.map_err(|status| self.failed(status))?.into_inner().info;
        Ok(wire::read_info(info.unwrap_or_default()))
    }

    async fn usage(&self, key: &str) -> Result<Usage> {
        let request = UsageRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        let response = self.client.clone().usage(self.request(key, request)).await;
        let usage = response.map_err(|status| self.failed(status))?.into_inner();
        let number = |count| u64::try_from(count).unwrap_or_default();
        Ok(Usage { size: number(usage.size), inodes: number(usage.inodes) })
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let request = MountsRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        let response = self.client.clone().mounts(self.request(key, request)).await;
        let mounts = response.map_err(|status| self.failed(status))?.into_inner().mounts;
        Ok(wire::read_mounts(mounts))
    }

    async fn prepare(
        &self,
        key: &str,
        parent: &str,
        options: PrepareOptions,
    ) -> Result<Vec<Mount>> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: options.labels.into_iter().collect(),
        };
        let response = self.client.clone().prepare(self.request(key, request)).await;
        let mounts = response.map_err(|status| self.failed(status))?.into_inner().mounts;
        Ok(wire::read_mounts(mounts))
    }

    async fn view(&self, key: &str, parent: &str, options: PrepareOptions) -> Result<Vec<Mount>> {
        let request = ViewSnapshotRequest {
            snapshotter: self.snapshotter(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: options.labels.into_iter().collect(),
        };
        let response = self.client.clone().view(self.request(key, request)).await;
        let mounts = response.map_err(|status| self.failed(status))?.into_inner().mounts;
        Ok(wire::read_mounts(mounts))
    }

    async fn commit(&self, name: &str, key: &str, options: CommitOptions) -> Result<()> {
        if let Some(parent) = &options.parent
            && self.stat(key).await?.parent != *parent
        {
            return Err(Error::unimplemented(format!(
                "snapshotter {} takes no parent at commit: prepare {key:?} on it",
                self.name
            )));
        }
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: options.labels.into_iter().collect(),
        };
        let response = self.client.clone().commit(self.request(key, request)).await;
        response.map(drop).map_err(|status| self.failed(status))
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let (snapshotter, owned) = (self.snapshotter(), key.to_owned());
        let request = RemoveSnapshotRequest { snapshotter, key: owned };
        let response = self.client.clone().remove(self.request(key, request)).await;
        response.map(drop).map_err(|status| self.failed(status))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Info>> {
        let request =
            ListSnapshotsRequest { snapshotter: self.snapshotter(), ..Default::default() };
        let response = self.client.clone().list(self.request(prefix, request)).await;
        let mut messages = response.map_err(|status| self.failed(status))?.into_inner();
        let mut found = Vec::new();
        while let Some(message) = messages.message().await.map_err(|status| self.failed(status))? {
            found.extend(message.info.into_iter().map(wire::read_info));
        }
        found.retain(|info| info.key.starts_with(prefix));
        found.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(found)
    }

    async fn cleanup(&self) -> Result<()> {
        let request = CleanupRequest { snapshotter: self.snapshotter() };
        let response = self.client.clone().cleanup(self.request("", request)).await;
        match response {
            // Many have nothing to clean up.
            Err(status) if status.code() == tonic::Code::Unimplemented => Ok(()),
            response => response.map(drop).map_err(|status| self.failed(status)),
        }
    }

    async fn changes(&self, key: &str) -> Result<PathBuf> {
        let mounts = self.mounts(key).await?;
        let directory = match mounts.as_slice() {
            [Mount { kind, source, options }] if kind == "bind" => {
                (!options.iter().any(|option| option == "ro")).then_some(source.as_str())
            }
            [Mount { kind, options, .. }] if kind == "overlay" => {
                options.iter().find_map(|option| option.strip_prefix("upperdir="))
            }
            _ => None,
        };
        directory.map(PathBuf::from).ok_or_else(|| {
            Error::failed_precondition(format!("snapshot {key} is not written to a directory"))
        })
    }

    fn rebases(&self) -> bool {
        false
    }

    async fn layers(&self, key: &str) -> Result<Vec<OwnedFd>> {
        let what = format!("snapshotter {} does not say where the layers of {key} are", self.name);
        Err(Error::unimplemented(what))
    }
}
