//! A namespace's view of content and snapshots.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod fixture;

use std::io::Read;

use berth_metadata::{Metadata, Scope, WriterRequest};
use berth_proto::containerd::services::content::v1::Info;
use berth_snapshotter::{CommitOptions, Kind as SnapshotKind};
use berth_types::{Digest, Kind};
use fixture::{Fixture, files, kind, labels, put};

fn request(reference: &str, bytes: &[u8]) -> WriterRequest {
    WriterRequest {
        reference: reference.into(),
        total: bytes.len() as u64,
        expected: Some(Digest::of(bytes)),
    }
}

fn read(scope: &Scope, digest: &Digest) -> Vec<u8> {
    let mut bytes = Vec::new();
    scope.content().reader(digest).unwrap().file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_blob_is_seen_by_its_namespace_only() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.scope("one"), fixture.scope("two"));
    let digest = put(&one, b"bytes", &[("k", "v")]).await;
    assert_eq!(read(&one, &digest), b"bytes");
    let info = one.content().info(&digest).unwrap();
    assert_eq!((info.size, info.labels), (5, labels(&[("k", "v")])));
    assert_eq!(kind(two.content().info(&digest)), Some(Kind::NotFound));
    assert_eq!(kind(two.content().reader(&digest)), Some(Kind::NotFound));
    assert_eq!(kind(two.content().delete(&digest).await), Some(Kind::NotFound));
    let again = one.content().writer(request("again", b"bytes")).await;
    assert_eq!(kind(again), Some(Kind::AlreadyExists));
}

#[tokio::test]
async fn a_blob_is_shared_with_who_names_it() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.scope("one"), fixture.scope("two"));
    let digest = put(&one, b"bytes", &[("k", "v")]).await;
    let writer = two.content().writer(request("r", b"bytes")).await.unwrap();
    assert_eq!((writer.status().offset, writer.digest()), (5, digest.clone()));
    assert_eq!(kind(two.content().info(&digest)), Some(Kind::NotFound), "not before the commit");
    let wrong = two.content().writer(request("s", b"bytes")).await.unwrap();
    assert_eq!(kind(wrong.commit(6, None, labels(&[])).await), Some(Kind::FailedPrecondition));
    let info = writer.commit(5, Some(digest.clone()), labels(&[])).await.unwrap();
    assert_eq!((info.size, info.labels.len()), (5, 0));
    assert_eq!(read(&two, &digest), b"bytes");
    one.content().delete(&digest).await.unwrap();
    fixture.metadata.collect().await.unwrap();
    assert_eq!(kind(one.content().info(&digest)), Some(Kind::NotFound));
}

#[tokio::test]
async fn a_shared_blob_is_copied_when_it_grows() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.scope("one"), fixture.scope("two"));
    let digest = put(&one, b"bytes", &[]).await;
    let mut writer = two.content().writer(request("r", b"bytes")).await.unwrap();
    writer.write(b" and more").unwrap();
    let grown = writer.commit(14, None, labels(&[])).await.unwrap();
    assert_eq!(grown.digest, Digest::of(b"bytes and more").to_string());
    assert_eq!(read(&one, &digest), b"bytes");
    let mut writer = two.content().writer(request("t", b"bytes")).await.unwrap();
    writer.truncate(2).unwrap();
    assert_eq!(writer.digest(), Digest::of(b"by"));
}

#[tokio::test]
async fn a_blob_of_another_size_is_not_shared() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.scope("one"), fixture.scope("two"));
    let digest = put(&one, b"bytes", &[]).await;
    let odd = WriterRequest { reference: "r".into(), total: 9, expected: Some(digest.clone()) };
    let mut writer = two.content().writer(odd).await.unwrap();
    assert_eq!(writer.status().offset, 0);
    writer.write(b"bytes").unwrap();
    writer.commit(5, Some(digest.clone()), labels(&[])).await.unwrap();
    assert_eq!(read(&two, &digest), b"bytes");
}

#[tokio::test]
async fn one_ref_of_two_namespaces_is_two_ingests() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.scope("one"), fixture.scope("two"));
    let open = |scope: &Scope| {
        let scope = scope.clone();
        async move { scope.content().writer(request("r", b"bytes")).await }
    };
    let mut first = open(&one).await.unwrap();
    let _second = open(&two).await.unwrap();
    assert_eq!(kind(open(&one).await), Some(Kind::Unavailable));
    first.write(b"by").unwrap();
    drop(first);
    assert_eq!(one.content().status("r").unwrap().offset, 2);
    assert_eq!(two.content().status("r").unwrap().offset, 0);
    assert_eq!(one.content().statuses(&["ref==r".into()]).unwrap().len(), 1);
    assert!(one.content().statuses(&["ref==x".into()]).unwrap().is_empty());

    let mut resumed = open(&one).await.unwrap();
    resumed.write(b"tes").unwrap();
    resumed.commit(5, None, labels(&[])).await.unwrap();
    assert_eq!(kind(one.content().status("r")), Some(Kind::NotFound));
    assert_eq!(kind(one.content().abort("r").await), Some(Kind::NotFound));
    two.content().abort("r").await.unwrap();
    assert_eq!(files(&fixture.root.path().join("content")), 1);
}

#[tokio::test]
async fn a_failed_commit_can_be_repeated() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let open =
        |reference: &str| WriterRequest { reference: reference.into(), ..Default::default() };
    let mut writer = scope.content().writer(open("r")).await.unwrap();
    writer.write(b"bytes").unwrap();
    let wrong = writer.commit(5, Some(Digest::of(b"others")), labels(&[])).await;
    assert_eq!(kind(wrong), Some(Kind::FailedPrecondition));
    let writer = scope.content().writer(open("r")).await.unwrap();
    writer.commit(5, None, labels(&[])).await.unwrap();
    let mut writer = scope.content().writer(open("s")).await.unwrap();
    writer.write(b"bytes").unwrap();
    assert_eq!(kind(writer.commit(0, None, labels(&[])).await), Some(Kind::AlreadyExists));
    assert!(scope.content().statuses(&[]).unwrap().is_empty());
}

#[tokio::test]
async fn content_labels_are_updated_by_mask() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let digest = put(&scope, b"bytes", &[("a", "1"), ("b", "2")]).await;
    let with = |entries: &[(&str, &str)]| Info {
        digest: digest.to_string(),
        labels: labels(entries),
        ..Default::default()
    };
    let mask = vec!["labels.a".to_owned()];
    let updated = scope.content().update(with(&[("a", "3")]), mask).await.unwrap();
    assert_eq!((updated.labels, updated.size), (labels(&[("a", "3"), ("b", "2")]), 5));
    let refused = scope.content().update(with(&[]), vec!["labels".into(), "size".into()]).await;
    assert_eq!(kind(refused), Some(Kind::InvalidArgument));
    assert_eq!(scope.content().list(&["labels.a==3".into()]).unwrap().len(), 1);
    assert_eq!(scope.content().update(with(&[]), vec![]).await.unwrap().labels.len(), 0);
}

#[tokio::test]
async fn snapshots_of_two_namespaces_do_not_meet() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.scope("one"), fixture.scope("two"));
    let (one, two) = (one.snapshots("overlayfs").unwrap(), two.snapshots("overlayfs").unwrap());
    assert_eq!(kind(fixture.scope("n").snapshots("zfs")), Some(Kind::InvalidArgument));
    let none = Default::default;
    one.prepare("work", "", none()).await.unwrap();
    two.prepare("work", "", none()).await.unwrap();
    assert_eq!(kind(one.prepare("work", "", none()).await), Some(Kind::AlreadyExists));
    one.commit("base", "work", CommitOptions::default()).await.unwrap();
    assert_eq!(kind(one.stat("work").await), Some(Kind::NotFound));
    assert_eq!(kind(two.prepare("c", "base", none()).await), Some(Kind::NotFound));
    one.prepare("c/d", "base", none()).await.unwrap();
    one.view("v", "base", none()).await.unwrap();
    let info = one.stat("c/d").await.unwrap();
    assert_eq!((info.key.as_str(), info.parent.as_str()), ("c/d", "base"));
    let keys = |infos: Vec<berth_snapshotter::Info>| -> Vec<String> {
        infos.into_iter().map(|info| info.key).collect()
    };
    assert_eq!(keys(one.list(&[]).await.unwrap()), ["base", "c/d", "v"]);
    assert_eq!(keys(one.list(&["parent==base,kind==view".into()]).await.unwrap()), ["v"]);
    assert_eq!(keys(two.list(&[]).await.unwrap()), ["work"]);
    assert_eq!(kind(one.remove("base").await), Some(Kind::FailedPrecondition));
    one.remove("v").await.unwrap();
    one.remove("c/d").await.unwrap();
    one.remove("base").await.unwrap();
    assert_eq!(kind(one.remove("base").await), Some(Kind::NotFound));
    assert_eq!(kind(one.prepare("", "", none()).await), Some(Kind::InvalidArgument));
}

#[tokio::test]
async fn a_target_that_is_there_is_not_prepared_again() {
    let fixture = Fixture::new().await;
    let scope = fixture.leased("n", "l").await;
    let snapshots = scope.snapshots("overlayfs").unwrap();
    let target = || [("containerd.io/snapshot.ref".to_owned(), "chain".to_owned())].into();
    snapshots.prepare("one", "", target()).await.unwrap();
    snapshots.commit("chain", "one", CommitOptions::default()).await.unwrap();
    assert_eq!(kind(snapshots.prepare("two", "", target()).await), Some(Kind::AlreadyExists));
    assert_eq!(kind(snapshots.stat("two").await), Some(Kind::NotFound));
    let kept = scope.leases().resources("l").unwrap();
    assert!(kept.iter().any(|resource| resource.id == "chain"), "{kept:?}");
    assert!(kept.iter().all(|resource| resource.id != "one"), "{kept:?}");
}

#[tokio::test]
async fn snapshot_labels_are_updated_by_mask() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let snapshots = scope.snapshots("overlayfs").unwrap();
    let with = |entries: &[(&str, &str)]| labels(entries).into_iter().collect();
    snapshots.prepare("s", "", with(&[("a", "1"), ("b", "2")])).await.unwrap();
    let updated =
        snapshots.update("s", with(&[("a", "3")]), vec!["labels.a".into()]).await.unwrap();
    assert_eq!(updated.labels, with(&[("a", "3"), ("b", "2")]));
    assert_eq!(updated.kind, SnapshotKind::Active);
    let refused = snapshots.update("s", with(&[]), vec!["parent".into()]).await;
    assert_eq!(kind(refused), Some(Kind::InvalidArgument));
    assert_eq!(snapshots.update("s", with(&[]), vec![]).await.unwrap().labels, with(&[]));
}

#[tokio::test]
async fn a_lease_that_is_gone_is_not_found_and_writes_nothing() {
    let fixture = Fixture::new().await;
    let scope = fixture.metadata.scope("n", Some("gone")).unwrap();
    assert_eq!(kind(scope.content().writer(request("r", b"bytes")).await), Some(Kind::NotFound));
    let snapshots = scope.snapshots("overlayfs").unwrap();
    assert_eq!(kind(snapshots.prepare("s", "", Default::default()).await), Some(Kind::NotFound));
    assert!(scope.content().statuses(&[]).unwrap().is_empty());
    assert!(snapshots.list(&[]).await.unwrap().is_empty());
    assert!(fixture.metadata.namespaces().list().unwrap().is_empty());
}

#[tokio::test]
async fn an_ingest_that_lost_its_row_gets_one_at_the_start() {
    let fixture = Fixture::new().await;
    fixture.content.writer("one/7/r/with/slashes", 0, None).unwrap().write(b"by").unwrap();
    fixture.content.writer("nobody's", 0, None).unwrap().write(b"x").unwrap();
    let (store, content) = (fixture.store.clone(), fixture.content.clone());
    let snapshotters = vec![fixture.overlay.clone()];
    let metadata = Metadata::open(store, content, snapshotters, None).await.unwrap();
    metadata.collect().await.unwrap();
    assert_eq!(kind(fixture.content.status("nobody's")), Some(Kind::NotFound));
    let scope = metadata.scope("one", None).unwrap();
    let mut resumed = scope.content().writer(request("r/with/slashes", b"bytes")).await.unwrap();
    assert_eq!(resumed.status().offset, 2);
    resumed.write(b"tes").unwrap();
    resumed.commit(5, None, labels(&[])).await.unwrap();
    assert_eq!(files(&fixture.root.path().join("content")), 1);
}
