//! Records of namespaces, images, containers and leases.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod fixture;

use berth_metadata::{Resource, containers};
use berth_proto::containerd::services::containers::v1::Container;
use berth_proto::containerd::services::containers::v1::container::Runtime;
use berth_proto::containerd::services::leases::v1::Lease;
use berth_proto::containerd::services::namespaces::v1::Namespace;
use berth_proto::containerd::types::{Sandbox, sandbox};
use berth_store::Durability;
use berth_types::labels::GC_EXPIRE;
use berth_types::{Digest, Error, Kind};
use fixture::{Fixture, image, kind, labels};

fn paths(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| path.to_string()).collect()
}

fn container(id: &str) -> Container {
    Container {
        id: id.into(),
        labels: labels(&[("a", "1"), ("b", "2")]),
        image: "busybox".into(),
        runtime: Some(Runtime { name: "io.containerd.berth.v1".into(), options: None }),
        spec: Some(prost_types::Any { type_url: "spec".into(), value: vec![0xff, 0, 1] }),
        snapshotter: "overlayfs".into(),
        snapshot_key: id.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn namespaces_are_made_by_use_and_deleted_when_empty() {
    let fixture = Fixture::new().await;
    let namespaces = fixture.metadata.namespaces();
    assert!(namespaces.list().unwrap().is_empty());
    let scope = fixture.scope("used");
    scope.images().create(image("i", b"target", &[])).await.unwrap();
    let labelled = Namespace { name: "made".into(), labels: labels(&[("k", "v"), ("e", "")]) };
    namespaces.create(labelled.clone()).await.unwrap();
    assert_eq!(kind(namespaces.create(labelled).await), Some(Kind::AlreadyExists));
    let names: Vec<_> = namespaces.list().unwrap().into_iter().map(|n| n.name).collect();
    assert_eq!(names, ["made", "used"]);
    assert_eq!(namespaces.get("made").unwrap().labels, labels(&[("k", "v")]));
    assert!(namespaces.get("none").unwrap().labels.is_empty());

    let error = namespaces.delete("used").await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.message().contains("still has images"), "{error}");
    scope.images().delete("i", None).await.unwrap();
    scope.leases().create(Lease { id: "l".into(), ..Default::default() }).await.unwrap();
    let snapshots = scope.snapshots("overlayfs").unwrap();
    snapshots.prepare("s", "", Default::default()).await.unwrap();
    let error = namespaces.delete("used").await.unwrap_err();
    assert!(error.message().contains("snapshots on \"overlayfs\""), "{error}");
    snapshots.remove("s").await.unwrap();
    namespaces.delete("used").await.unwrap();
    assert_eq!(kind(namespaces.delete("used").await), Some(Kind::NotFound));
    assert!(scope.leases().list(&[]).unwrap().is_empty());
}

#[tokio::test]
async fn sandboxes_are_created_updated_by_field_listed_and_deleted() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let runtime = |name: &str| Some(sandbox::Runtime { name: name.into(), options: None });
    let of = |id: &str, entries: &[(&str, &str)]| Sandbox {
        sandbox_id: id.into(),
        labels: labels(entries),
        runtime: runtime("r"),
        sandboxer: "shim".into(),
        ..Default::default()
    };
    let sandboxes = scope.sandboxes();
    let made = sandboxes.create(of("a", &[("k", "1"), ("e", "")])).await.unwrap();
    assert!(made.created_at.is_some() && made.created_at == made.updated_at);
    assert_eq!(made.labels, labels(&[("k", "1")]));
    assert_eq!(kind(sandboxes.create(of("a", &[])).await), Some(Kind::AlreadyExists));
    assert_eq!(kind(sandboxes.create(of("a/b", &[])).await), Some(Kind::InvalidArgument));
    sandboxes.create(of("b", &[])).await.unwrap();
    assert_eq!(
        kind(fixture.metadata.namespaces().delete("n").await),
        Some(Kind::FailedPrecondition)
    );

    let changed = sandboxes.update(of("a", &[("l", "2")]), paths(&["labels.l"])).await.unwrap();
    assert_eq!(changed.labels, labels(&[("k", "1"), ("l", "2")]));
    let other = Sandbox { runtime: runtime("other"), ..of("a", &[]) };
    let refused = sandboxes.update(other.clone(), paths(&[])).await;
    assert_eq!(kind(refused), Some(Kind::InvalidArgument));
    sandboxes.update(other, paths(&["runtime"])).await.unwrap();
    let refused = sandboxes.update(of("a", &[]), paths(&["sandboxer"])).await;
    assert_eq!(kind(refused), Some(Kind::InvalidArgument));
    assert_eq!(kind(sandboxes.update(of("c", &[]), paths(&[])).await), Some(Kind::NotFound));

    let ids = |filter: &str| {
        let found = sandboxes.list(&[filter.to_owned()]).unwrap();
        found.into_iter().map(|sandbox| sandbox.sandbox_id).collect::<Vec<_>>()
    };
    assert_eq!(ids("runtime.name==other"), ["a"]);
    assert_eq!(ids("labels.k==1,sandboxer==shim"), ["a"]);
    assert_eq!(ids("id==b"), ["b"]);
    sandboxes.delete("a").await.unwrap();
    assert_eq!(kind(sandboxes.delete("a").await), Some(Kind::NotFound));
    assert_eq!(kind(sandboxes.get("a")), Some(Kind::NotFound));
}

#[tokio::test]
async fn namespaces_are_updated_by_mask() {
    let fixture = Fixture::new().await;
    let namespaces = fixture.metadata.namespaces();
    let with = |entries: &[(&str, &str)]| Namespace { name: "n".into(), labels: labels(entries) };
    namespaces.create(with(&[("a", "1"), ("b", "2")])).await.unwrap();
    let mask = paths(&["labels.a", "labels.b"]);
    let updated = namespaces.update(with(&[("a", "3")]), mask).await.unwrap();
    assert_eq!(updated, with(&[("a", "3")]));
    let refused = namespaces.update(with(&[]), paths(&["labels.a", "name"])).await;
    assert_eq!(kind(refused), Some(Kind::InvalidArgument));
    assert_eq!(namespaces.get("n").unwrap(), with(&[("a", "3")]));
    assert_eq!(kind(fixture.metadata.scope("..", None)), Some(Kind::InvalidArgument));
}

#[tokio::test]
async fn images_are_created_listed_and_deleted() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.scope("one"), fixture.scope("two"));
    let made = one.images().create(image("a", b"x", &[("k", "v")])).await.unwrap();
    assert!(made.created_at.is_some() && made.created_at == made.updated_at);
    assert_eq!(one.images().get("a").unwrap(), made);
    assert_eq!(kind(one.images().create(made.clone()).await), Some(Kind::AlreadyExists));
    assert_eq!(kind(two.images().get("a")), Some(Kind::NotFound));
    two.images().create(image("a", b"other", &[])).await.unwrap();
    one.images().create(image("b", b"y", &[])).await.unwrap();

    let named = |filter: &str| -> Vec<String> {
        let found = one.images().list(&[filter.to_owned()]).unwrap();
        found.into_iter().map(|image| image.name).collect()
    };
    assert_eq!(named(""), ["a", "b"]);
    assert_eq!(named("labels.k==v"), ["a"]);
    assert_eq!(named(&format!("target.digest=={}", Digest::of(b"y"))), ["b"]);
    assert_eq!(named("target.mediatype~=manifest,name!=a"), ["b"]);
    assert_eq!(kind(one.images().list(&["name=".into()])), Some(Kind::InvalidArgument));

    let elsewhere = Some(Digest::of(b"elsewhere"));
    assert_eq!(kind(one.images().delete("a", elsewhere).await), Some(Kind::NotFound));
    one.images().delete("a", Some(Digest::of(b"x"))).await.unwrap();
    assert_eq!(kind(one.images().delete("a", None).await), Some(Kind::NotFound));
    assert!(two.images().get("a").is_ok());
}

#[tokio::test]
async fn unacceptable_images_are_refused() {
    let fixture = Fixture::new().await;
    let images = fixture.scope("n");
    let base = image("a", b"x", &[]);
    let with_target = |change: fn(&mut berth_proto::containerd::types::Descriptor)| {
        let mut image = base.clone();
        change(image.target.as_mut().unwrap());
        image
    };
    let mut unnamed = base.clone();
    unnamed.name.clear();
    let mut untargeted = base.clone();
    untargeted.target = None;
    for bad in [
        unnamed,
        untargeted,
        with_target(|target| target.digest = "sha256:short".into()),
        with_target(|target| target.size = 0),
        with_target(|target| target.media_type.clear()),
        image("a", b"x", &[("k", &"v".repeat(5000))]),
    ] {
        assert_eq!(kind(images.images().create(bad).await), Some(Kind::InvalidArgument));
    }
    assert!(images.images().list(&[]).unwrap().is_empty());
}

#[tokio::test]
async fn images_are_updated_by_mask() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let images = scope.images();
    let mut made = image("a", b"x", &[("k", "v"), ("l", "w")]);
    made.target.as_mut().unwrap().annotations = labels(&[("n", "1")]);
    let made = images.create(made).await.unwrap();
    let mut other = image("a", b"y", &[("k", "new")]);
    other.target.as_mut().unwrap().annotations = labels(&[("n", "2"), ("m", "3")]);

    let updated =
        images.update(other.clone(), paths(&["labels.k", "annotations.m"])).await.unwrap();
    assert_eq!(updated.labels, labels(&[("k", "new"), ("l", "w")]));
    let target = updated.target.clone().unwrap();
    assert_eq!(target.annotations, labels(&[("n", "1"), ("m", "3")]));
    assert_eq!(target.digest, made.target.unwrap().digest);
    assert_eq!(updated.created_at, made.created_at);

    for bad in [&["labels.k", "created_at"][..], &["name"], &["target.digest"], &["label"]] {
        let refused = images.update(other.clone(), paths(bad)).await;
        assert_eq!(kind(refused), Some(Kind::InvalidArgument), "{bad:?}");
    }
    assert_eq!(images.get("a").unwrap(), updated, "a refused update changes nothing");

    let updated = images.update(other.clone(), paths(&["target"])).await.unwrap();
    assert_eq!(updated.target, other.target);
    assert_eq!(updated.labels, labels(&[("k", "new"), ("l", "w")]));
    let updated = images.update(other.clone(), vec![]).await.unwrap();
    assert_eq!((updated.labels, updated.created_at), (other.labels.clone(), made.created_at));
    assert_eq!(kind(images.update(image("b", b"x", &[]), vec![]).await), Some(Kind::NotFound));
}

#[tokio::test]
async fn containers_keep_their_spec_and_their_fixed_fields() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let all = scope.containers();
    let made = all.create(container("c")).await.unwrap();
    assert_eq!(made.spec.as_ref().unwrap().value, [0xff, 0, 1]);
    assert_eq!(kind(all.create(container("c")).await), Some(Kind::AlreadyExists));
    let found = all.list(&["runtime.name~=berth,image==busybox".into()]).unwrap();
    assert_eq!(found, std::slice::from_ref(&made));

    let mut other = container("c");
    other.labels = labels(&[("a", "9")]);
    other.image = "alpine".into();
    other.spec = Some(prost_types::Any { type_url: "spec".into(), value: vec![7] });
    let any = prost_types::Any { type_url: "x".into(), value: vec![1] };
    other.extensions = [("e.f".to_string(), any.clone())].into();
    let mask = paths(&["labels.a", "labels.b", "extensions.e.f", "spec"]);
    let updated = all.update(other.clone(), mask).await.unwrap();
    assert_eq!(updated.labels, labels(&[("a", "9")]));
    assert_eq!(updated.extensions["e.f"], any);
    assert_eq!((updated.spec, updated.image), (other.spec.clone(), "busybox".into()));

    for bad in ["runtime", "snapshotter", "id", "created_at", "nothing"] {
        let refused = all.update(other.clone(), paths(&["image", bad])).await;
        assert_eq!(kind(refused), Some(Kind::InvalidArgument), "{bad}");
    }
    assert_eq!(all.get("c").unwrap().image, "busybox");
    let mut moved = other.clone();
    moved.snapshotter = "native".into();
    assert_eq!(kind(all.update(moved, vec![]).await), Some(Kind::InvalidArgument));
    let replaced = all.update(other.clone(), vec![]).await.unwrap();
    assert_eq!((replaced.image, replaced.created_at), ("alpine".into(), made.created_at));
    assert_eq!(kind(all.update(container("d"), vec![]).await), Some(Kind::NotFound));
    all.delete("c").await.unwrap();
    assert_eq!(kind(all.delete("c").await), Some(Kind::NotFound));
}

#[tokio::test]
async fn unacceptable_containers_are_refused() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let changes: [fn(&mut Container); 5] = [
        |c| c.id = "a/b".into(),
        |c| c.runtime = None,
        |c| c.spec = None,
        |c| c.snapshotter.clear(),
        |c| drop(c.extensions.insert(String::new(), Default::default())),
    ];
    for change in changes {
        let mut bad = container("c");
        change(&mut bad);
        assert_eq!(kind(scope.containers().create(bad).await), Some(Kind::InvalidArgument));
    }
}

#[tokio::test]
async fn a_container_goes_with_the_rows_beside_it() {
    let (seen, mut deleted) = tokio::sync::mpsc::unbounded_channel();
    let fixture = Fixture::with_companion(move |_, ns, id| {
        if id == "stuck" {
            return Err(Error::internal("the row beside it is damaged"));
        }
        seen.send(format!("{ns}/{id}")).map_err(|_| Error::internal("closed"))
    })
    .await;
    let scope = fixture.scope("n");
    for id in ["c", "stuck"] {
        scope.containers().create(container(id)).await.unwrap();
    }
    scope.containers().delete("c").await.unwrap();
    assert_eq!(deleted.recv().await.unwrap(), "n/c");
    assert!(scope.containers().delete("stuck").await.is_err());
    assert!(scope.containers().get("stuck").is_ok(), "both go, or none");
}

#[tokio::test]
async fn containers_are_written_in_a_callers_transaction() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let write = |id: &'static str| {
        fixture.store.write(Durability::Buffered, move |transaction| {
            containers::insert(transaction, "n", container(id))
        })
    };
    write("c").await.unwrap();
    assert_eq!(kind(write("c").await), Some(Kind::AlreadyExists));
    let inner = scope.clone();
    fixture
        .store
        .write(Durability::Buffered, move |transaction| {
            containers::remove(transaction, &inner, "c")
        })
        .await
        .unwrap();
    assert!(scope.containers().list(&[]).unwrap().is_empty());
}

#[tokio::test]
async fn leases_have_resources() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let leases = scope.leases();
    let lease = |id: &str| Lease { id: id.into(), labels: labels(&[("k", id)]), created_at: None };
    leases.create(lease("a")).await.unwrap();
    leases.create(lease("ab")).await.unwrap();
    assert_eq!(kind(leases.create(lease("a")).await), Some(Kind::AlreadyExists));
    assert_eq!(kind(leases.create(Lease::default()).await), Some(Kind::InvalidArgument));
    let found = leases.list(&["labels.k==ab".into()]).unwrap();
    assert_eq!(found.iter().map(|l| l.id.as_str()).collect::<Vec<_>>(), ["ab"]);

    let resource = |kind: &str, id: &str| Resource { kind: kind.into(), id: id.into() };
    let content = resource("content", Digest::of(b"x").as_str());
    let snapshot = resource("snapshots/overlayfs", "s");
    leases.add_resource("a", content.clone()).await.unwrap();
    leases.add_resource("a", content.clone()).await.unwrap();
    leases.add_resource("a", snapshot.clone()).await.unwrap();
    leases.add_resource("ab", resource("ingests", "i")).await.unwrap();
    assert_eq!(leases.resources("a").unwrap(), [content.clone(), snapshot.clone()]);
    leases.delete_resource("a", content.clone()).await.unwrap();
    leases.delete_resource("a", content.clone()).await.unwrap();
    assert_eq!(leases.resources("a").unwrap(), [snapshot]);

    for (bad, expected) in [
        (resource("content", "x"), Kind::InvalidArgument),
        (resource("content/x", "x"), Kind::InvalidArgument),
        (resource("snapshots", "x"), Kind::InvalidArgument),
        (resource("snapshots/a/b", "x"), Kind::InvalidArgument),
        (resource("tasks", "x"), Kind::Unimplemented),
    ] {
        assert_eq!(kind(leases.add_resource("a", bad).await), Some(expected));
    }
    assert_eq!(kind(leases.add_resource("none", content).await), Some(Kind::NotFound));
    assert_eq!(kind(leases.resources("none")), Some(Kind::NotFound));
    leases.delete("a").await.unwrap();
    assert_eq!(kind(leases.delete("a").await), Some(Kind::NotFound));
    leases.create(lease("a")).await.unwrap();
    assert!(leases.resources("a").unwrap().is_empty());
    assert_eq!(leases.resources("ab").unwrap().len(), 1);
}

#[tokio::test]
async fn a_lease_expires_sooner_but_no_later_than_it_was_to() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let leases = scope.leases();
    leases.create(Lease { id: "a".into(), ..Default::default() }).await.unwrap();
    let until = || leases.list(&[]).unwrap()[0].labels.get(GC_EXPIRE).cloned().unwrap_or_default();
    for (at, expected) in [
        ("2999-02-03T04:05:06Z", "2999-02-03T04:05:06Z"),
        ("2999-02-03T04:05:07Z", "2999-02-03T04:05:06Z"),
        ("2998-02-03T04:05:07Z", "2998-02-03T04:05:07Z"),
    ] {
        leases.expire("a", at).await.unwrap();
        assert_eq!(until(), expected);
    }
    assert_eq!(kind(leases.expire("b", "2999-02-03T04:05:06Z").await), Some(Kind::NotFound));
}
