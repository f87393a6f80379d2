use berth_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_proto::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, Kind, ListSnapshotsRequest, MountsRequest,
    PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest,
    UsageRequest, ViewSnapshotRequest,
};
use tonic::Code;

use super::{Api, code, labels, mask};

/// containerd keeps a label that says for whom; so does a client.
const OVERLAY: &str = "overlayfs";

fn prepare(key: &str, parent: &str) -> PrepareSnapshotRequest {
    PrepareSnapshotRequest {
        snapshotter: OVERLAY.into(),
        key: key.into(),
        parent: parent.into(),
        ..Default::default()
    }
}

fn commit(name: &str, key: &str) -> CommitSnapshotRequest {
    CommitSnapshotRequest {
        snapshotter: OVERLAY.into(),
        name: name.into(),
        key: key.into(),
        ..Default::default()
    }
}

fn remove(key: &str) -> RemoveSnapshotRequest {
    RemoveSnapshotRequest { snapshotter: OVERLAY.into(), key: key.into() }
}

fn view(key: &str, parent: &str) -> ViewSnapshotRequest {
    ViewSnapshotRequest {
        snapshotter: OVERLAY.into(),
        key: key.into(),
        parent: parent.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn snapshots() {
    let api = Api::start().await;
    let mut client = api.client(SnapshotsClient::new);
    let first = client.prepare(api.request(prepare("work", ""))).await.unwrap().into_inner();
    assert_eq!(first.mounts.len(), 1);
    assert_eq!(first.mounts[0].r#type, "bind");
    let again = client.prepare(api.request(prepare("work", ""))).await;
    assert_eq!(code(again), Code::AlreadyExists);
    let orphan = client.prepare(api.request(prepare("child", "nobody"))).await;
    assert_eq!(code(orphan), Code::NotFound);
    let on_active = client.prepare(api.request(prepare("child", "work"))).await;
    assert_eq!(code(on_active), Code::InvalidArgument);

    client.commit(api.request(commit("base", "work"))).await.unwrap();
    assert_eq!(code(client.commit(api.request(commit("x", "work"))).await), Code::NotFound);
    let upper = client.prepare(api.request(prepare("upper", "base"))).await.unwrap().into_inner();
    assert_eq!(upper.mounts[0].r#type, "overlay");
    let taken = client.commit(api.request(commit("base", "upper"))).await;
    assert_eq!(code(taken), Code::AlreadyExists);
    let view = client.view(api.request(view("look", "base"))).await.unwrap().into_inner();
    assert!(view.mounts[0].options.contains(&"ro".to_owned()), "{:?}", view.mounts);
    let viewed = client.commit(api.request(commit("x", "look"))).await;
    assert_eq!(code(viewed), Code::FailedPrecondition);

    let stat = |key: &str| StatSnapshotRequest { snapshotter: OVERLAY.into(), key: key.into() };
    for (key, kind, parent) in [
        ("base", Kind::Committed, ""),
        ("upper", Kind::Active, "base"),
        ("look", Kind::View, "base"),
    ] {
        let info = client.stat(api.request(stat(key))).await.unwrap().into_inner().info.unwrap();
        assert_eq!((info.name.as_str(), info.kind(), info.parent.as_str()), (key, kind, parent));
    }
    let missing = client.stat(api.request(stat("nobody"))).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let is_local = !missing.message().contains(api.engine.namespace());
    assert!(is_local, "a name that no client knows: {}", missing.message());
    let update = |path: &str| UpdateSnapshotRequest {
        snapshotter: OVERLAY.into(),
        info: Some(Info { name: "upper".into(), labels: labels(&[("a", "1")]), ..Info::default() }),
        update_mask: mask(&[path]),
    };
    client.update(api.request(update("labels.a"))).await.unwrap();
    let refused = client.update(api.request(update("parent"))).await;
    assert_eq!(code(refused), Code::InvalidArgument);

    let mut list = async |filter: &str| {
        let list =
            ListSnapshotsRequest { snapshotter: OVERLAY.into(), filters: vec![filter.to_owned()] };
        let mut stream = client.list(api.request(list)).await?.into_inner();
        let mut names = Vec::new();
        while let Some(message) = stream.message().await? {
            names.extend(message.info.into_iter().map(|info| info.name));
        }
        names.sort();
        Ok::<_, tonic::Status>(names)
    };
    assert_eq!(list("kind==committed").await.unwrap(), ["base"]);
    assert_eq!(list("parent==base").await.unwrap(), ["look", "upper"]);
    assert_eq!(list("labels.a==1").await.unwrap(), ["upper"]);
    let malformed = list("kind=").await.unwrap_err().code();
    api.check(malformed, Code::InvalidArgument);

    let usage = UsageRequest { snapshotter: OVERLAY.into(), key: "upper".into() };
    assert!(client.usage(api.request(usage)).await.unwrap().into_inner().inodes > 0);
    let mounts = MountsRequest { snapshotter: OVERLAY.into(), key: "base".into() };
    assert_ne!(code(client.mounts(api.request(mounts)).await), Code::Ok);
    assert_eq!(code(client.remove(api.request(remove("base"))).await), Code::FailedPrecondition);
    for key in ["upper", "look", "base"] {
        client.remove(api.request(remove(key))).await.unwrap();
    }
    assert_eq!(code(client.remove(api.request(remove("base"))).await), Code::NotFound);
    let cleanup = CleanupRequest { snapshotter: OVERLAY.into() };
    // Debian's containerd has nothing to clean up.
    let cleaned = code(client.cleanup(api.request(cleanup)).await);
    assert!(matches!(cleaned, Code::Ok | Code::Unimplemented), "{cleaned:?}");
    let nobodys = CleanupRequest { snapshotter: "nobodys".into() };
    api.check(code(client.cleanup(api.request(nobodys)).await), Code::InvalidArgument);
}
