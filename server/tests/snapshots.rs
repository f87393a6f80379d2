//! Snapshots, diffs and events over the API.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod daemon;

use std::fs;
use std::path::{Path, PathBuf};

use berth_proto::containerd::services::content::v1::InfoRequest;
use berth_proto::containerd::services::content::v1::content_client::ContentClient;
use berth_proto::containerd::services::diff::v1::diff_client::DiffClient;
use berth_proto::containerd::services::diff::v1::{ApplyRequest, DiffRequest};
use berth_proto::containerd::services::events::v1::SubscribeRequest;
use berth_proto::containerd::services::events::v1::events_client::EventsClient;
use berth_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, ViewSnapshotRequest,
};
use berth_proto::containerd::types::{Descriptor, Mount};
use daemon::{Daemon, in_namespace};
use tonic::Code;
use tonic::transport::Channel;

type Snapshots = SnapshotsClient<Channel>;

fn snapshotter() -> String {
    "overlayfs".to_owned()
}

async fn prepare(client: &mut Snapshots, key: &str, parent: &str) -> Vec<Mount> {
    let request = PrepareSnapshotRequest {
        snapshotter: snapshotter(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..Default::default()
    };
    client.prepare(in_namespace("default", request)).await.unwrap().into_inner().mounts
}

async fn commit(client: &mut Snapshots, key: &str, name: &str) {
    let request = CommitSnapshotRequest {
        snapshotter: snapshotter(),
        key: key.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    client.commit(in_namespace("default", request)).await.unwrap();
}

async fn view(client: &mut Snapshots, key: &str, parent: &str) -> Vec<Mount> {
    let request = ViewSnapshotRequest {
        snapshotter: snapshotter(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..Default::default()
    };
    client.view(in_namespace("default", request)).await.unwrap().into_inner().mounts
}

/// Where changes to an active snapshot go.
fn upper(mounts: &[Mount]) -> PathBuf {
    let upper = mounts[0].options.iter().find_map(|option| option.strip_prefix("upperdir="));
    PathBuf::from(upper.unwrap_or(&mounts[0].source))
}

/// Three snapshots on each other: `one`, `two` and the active `three`, in which one file is
/// removed and one is new. Returns the mounts of `three`.
async fn stack(client: &mut Snapshots) -> Vec<Mount> {
    let one = prepare(client, "a1", "").await;
    fs::write(upper(&one).join("removed"), "1").unwrap();
    fs::write(upper(&one).join("kept"), "1").unwrap();
    commit(client, "a1", "one").await;
    let two = prepare(client, "a2", "one").await;
    fs::write(upper(&two).join("second"), "2").unwrap();
    commit(client, "a2", "two").await;
    let three = prepare(client, "three", "two").await;
    let changes = upper(&three);
    fs::create_dir(changes.join("new")).unwrap();
    fs::write(changes.join("new/file"), "3").unwrap();
    let whiteout = changes.join("removed");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &whiteout,
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    )
    .unwrap();
    three
}

/// The names in a layer's blob.
fn names(daemon: &Daemon, digest: &str) -> Vec<String> {
    let hex = digest.strip_prefix("sha256:").unwrap();
    let blob = fs::read(daemon.root().join("content/blobs/sha256").join(hex)).unwrap();
    let layer = flate2::read::GzDecoder::new(&blob[..]);
    let mut archive = tar::Archive::new(layer);
    let entries = archive.entries().unwrap();
    entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

#[tokio::test]
async fn a_difference_is_a_layer_that_applies_to_the_same_tree() {
    let daemon = Daemon::start();
    let channel = daemon.channel().await;
    let mut snapshots = SnapshotsClient::new(channel.clone());
    let three = stack(&mut snapshots).await;
    let two = view(&mut snapshots, "left", "two").await;
    let mut diff = DiffClient::new(channel.clone());
    let request = DiffRequest { left: two, right: three.clone(), ..Default::default() };
    let layer = diff.diff(in_namespace("default", request)).await.unwrap().into_inner();
    let layer: Descriptor = layer.diff.unwrap();
    let mut found = names(&daemon, &layer.digest);
    found.sort();
    assert_eq!(found, [".wh.removed", "new/", "new/file"]);

    let mut content = ContentClient::new(channel.clone());
    let asked = InfoRequest { digest: layer.digest.clone() };
    let info = content.info(in_namespace("default", asked)).await.unwrap().into_inner();
    let labels = info.info.unwrap().labels;

    let again = prepare(&mut snapshots, "again", "two").await;
    let request = ApplyRequest { diff: Some(layer), mounts: again.clone(), ..Default::default() };
    let applied = diff.apply(in_namespace("default", request)).await.unwrap().into_inner();
    assert_eq!(applied.applied.unwrap().digest, labels["containerd.io/uncompressed"]);
    assert_eq!(fs::read(upper(&again).join("new/file")).unwrap(), b"3");
    assert!(fs::symlink_metadata(upper(&again).join("removed")).is_ok());

    // Trees that are not on each other are compared file by file.
    let one = view(&mut snapshots, "one-view", "one").await;
    let request = DiffRequest { left: one, right: three, ..Default::default() };
    let layer = diff.diff(in_namespace("default", request)).await.unwrap().into_inner();
    let mut found = names(&daemon, &layer.diff.unwrap().digest);
    found.sort();
    found.retain(|name| name != "./");
    assert_eq!(found, [".wh.removed", "new/", "new/file", "second"]);
}

#[tokio::test]
async fn what_is_no_layer_and_no_known_mount_is_refused() {
    let daemon = Daemon::start();
    let mut diff = DiffClient::new(daemon.channel().await);
    let refused = |media_type: &str, kind: &str| ApplyRequest {
        diff: Some(Descriptor {
            media_type: media_type.to_owned(),
            digest: berth_types::Digest::of(b"").to_string(),
            ..Default::default()
        }),
        mounts: vec![Mount { r#type: kind.to_owned(), source: "/".into(), ..Default::default() }],
        ..Default::default()
    };
    let layer = "application/vnd.oci.image.layer.v1.tar";
    for (request, code) in [
        (refused("text/plain", "bind"), Code::Unimplemented),
        (refused(layer, "ext4"), Code::Unimplemented),
        (refused(layer, "bind"), Code::NotFound),
    ] {
        let error = diff.apply(in_namespace("default", request)).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}

#[tokio::test]
async fn changes_are_published_in_order() {
    let daemon = Daemon::start();
    let channel = daemon.channel().await;
    let mut events = EventsClient::new(channel.clone());
    let mut stream = events.subscribe(SubscribeRequest::default()).await.unwrap().into_inner();
    let mut snapshots = SnapshotsClient::new(channel);
    prepare(&mut snapshots, "a", "").await;
    commit(&mut snapshots, "a", "b").await;
    let remove = RemoveSnapshotRequest { snapshotter: snapshotter(), key: "b".to_owned() };
    snapshots.remove(in_namespace("default", remove)).await.unwrap();
    for topic in ["/snapshot/prepare", "/snapshot/commit", "/snapshot/remove"] {
        let envelope = stream.message().await.unwrap().unwrap();
        assert_eq!((envelope.topic.as_str(), envelope.namespace.as_str()), (topic, "default"));
    }
}

#[tokio::test]
async fn a_parent_can_not_be_removed_and_unknown_snapshotters_are_named() {
    let daemon = Daemon::start();
    let mut snapshots = SnapshotsClient::new(daemon.channel().await);
    stack(&mut snapshots).await;
    let remove = |key: &str, snapshotter: &str| {
        let (key, snapshotter) = (key.to_owned(), snapshotter.to_owned());
        in_namespace("default", RemoveSnapshotRequest { key, snapshotter })
    };
    for (request, code) in [
        (remove("two", "overlayfs"), Code::FailedPrecondition),
        (remove("nothing", "overlayfs"), Code::NotFound),
        (remove("two", ""), Code::InvalidArgument),
        (remove("two", "zfs"), Code::InvalidArgument),
    ] {
        assert_eq!(snapshots.remove(request).await.unwrap_err().code(), code);
    }
    assert!(Path::new(&daemon.root()).join("snapshots/overlayfs").is_dir());
}
