//! Garbage collection: what goes, what stays, and what happens meanwhile.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod fixture;

use std::collections::{BTreeSet, HashMap};

use berth_metadata::{Resource, WriterRequest};
use berth_proto::containerd::services::containers::v1::Container;
use berth_proto::containerd::services::containers::v1::container::Runtime;
use berth_proto::containerd::services::leases::v1::Lease;
use berth_snapshotter::CommitOptions;
use berth_types::{Digest, Kind};
use fixture::{Fixture, files, image, kind, labels, put};
use proptest::prelude::*;

const ROOT: &str = "containerd.io/gc.root";
const EXPIRE: &str = "containerd.io/gc.expire";
const PAST: &str = "2001-02-03T04:05:06Z";
const FUTURE: &str = "2999-02-03T04:05:06+01:00";

fn container(id: &str, snapshot: &str) -> Container {
    Container {
        id: id.into(),
        runtime: Some(Runtime { name: "r".into(), options: None }),
        spec: Some(Default::default()),
        snapshotter: "overlayfs".into(),
        snapshot_key: snapshot.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_image_keeps_what_its_labels_name_and_takes_it_along() {
    let fixture = Fixture::new().await;
    let scope = fixture.leased("n", "pull").await;
    let snapshots = scope.snapshots("overlayfs").unwrap();
    for (key, parent) in [("layer", ""), ("top", "layer")] {
        snapshots.prepare("work", parent, Default::default()).await.unwrap();
        snapshots.commit(key, "work", CommitOptions::default()).await.unwrap();
    }
    let layer = put(&scope, b"layer", &[]).await;
    let config =
        put(&scope, b"config", &[("containerd.io/gc.ref.snapshot.overlayfs", "top")]).await;
    let refs = [
        ("containerd.io/gc.ref.content.config", config.as_str()),
        ("containerd.io/gc.ref.content.l.0", layer.as_str()),
    ];
    let manifest = put(&scope, b"manifest", &refs).await;
    let other = put(&scope, b"other", &[]).await;
    scope.images().create(image("i", b"manifest", &[])).await.unwrap();
    assert_eq!(fixture.metadata.collect().await.unwrap(), Default::default(), "all is leased");

    scope.leases().delete("pull").await.unwrap();
    let collected = fixture.metadata.collect().await.unwrap();
    assert_eq!(collected.blobs, [other]);
    assert_eq!(collected.bytes, 5);
    assert!(collected.snapshots.is_empty());
    for digest in [&layer, &config, &manifest] {
        fixture.content.verify(digest).unwrap();
    }

    let scope = fixture.scope("n");
    scope.images().delete("i", None).await.unwrap();
    let collected = fixture.metadata.collect().await.unwrap();
    assert_eq!((collected.blobs.len(), collected.content.len()), (3, 3));
    let keys: Vec<_> = collected.snapshots.iter().map(|s| s.key.as_str()).collect();
    assert_eq!(keys, ["top", "layer"]);
    assert_eq!(files(&fixture.root.path().join("content")), 0);
    assert!(fixture.overlay.list("").await.unwrap().is_empty());
    assert_eq!(fixture.metadata.collect().await.unwrap(), Default::default());
}

#[tokio::test]
async fn a_container_keeps_its_snapshot() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let snapshots = scope.snapshots("overlayfs").unwrap();
    snapshots.prepare("work", "", Default::default()).await.unwrap();
    snapshots.commit("base", "work", CommitOptions::default()).await.unwrap();
    snapshots.prepare("kept", "base", Default::default()).await.unwrap();
    snapshots.prepare("lost", "base", Default::default()).await.unwrap();
    let rooted = [(ROOT.to_owned(), "now".to_owned())].into();
    snapshots.prepare("rooted", "", rooted).await.unwrap();
    scope.containers().create(container("c", "kept")).await.unwrap();
    let collected = fixture.metadata.collect().await.unwrap();
    let keys: Vec<_> = collected.snapshots.iter().map(|s| s.key.as_str()).collect();
    assert_eq!(keys, ["lost"]);
    scope.containers().delete("c").await.unwrap();
    let collected = fixture.metadata.collect().await.unwrap();
    let keys: Vec<_> = collected.snapshots.iter().map(|s| s.key.as_str()).collect();
    assert_eq!(keys, ["kept", "base"]);
    snapshots.stat("rooted").await.unwrap();
}

#[tokio::test]
async fn expired_leases_and_images_keep_nothing() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    let lease = |id: &str, with: &[(&str, &str)]| Lease {
        id: id.into(),
        labels: labels(with),
        created_at: None,
    };
    scope.leases().create(lease("past", &[(EXPIRE, PAST)])).await.unwrap();
    scope.leases().create(lease("future", &[(EXPIRE, FUTURE)])).await.unwrap();
    scope.leases().create(lease("typo", &[(EXPIRE, "tomorrow")])).await.unwrap();
    let mut kept = Vec::new();
    for id in ["past", "future", "typo"] {
        let scope = fixture.metadata.scope("n", Some(id)).unwrap();
        kept.push(put(&scope, id.as_bytes(), &[]).await);
    }
    scope.images().create(image("old", b"typo", &[(EXPIRE, PAST)])).await.unwrap();
    scope.images().create(image("new", b"typo", &[(EXPIRE, FUTURE)])).await.unwrap();
    let collected = fixture.metadata.collect().await.unwrap();
    assert_eq!(collected.blobs, [kept.remove(0)]);
    assert_eq!(collected.leases, [("n".to_owned(), "past".to_owned())]);
    assert_eq!(collected.images, [("n".to_owned(), "old".to_owned())]);
    for digest in kept {
        scope.content().info(&digest).unwrap();
    }
}

#[tokio::test]
async fn a_flat_lease_keeps_no_more_than_it_names() {
    let fixture = Fixture::new().await;
    let scope = fixture.leased("n", "writing").await;
    let below = put(&scope, b"below", &[]).await;
    let above = put(&scope, b"above", &[("containerd.io/gc.ref.content", below.as_str())]).await;
    let flat = Lease {
        id: "flat".into(),
        labels: labels(&[("containerd.io/gc.flat", "1")]),
        created_at: None,
    };
    scope.leases().create(flat).await.unwrap();
    let resource = Resource { kind: "content".into(), id: above.to_string() };
    scope.leases().add_resource("flat", resource).await.unwrap();
    scope.leases().delete("writing").await.unwrap();
    assert_eq!(fixture.metadata.collect().await.unwrap().blobs, [below]);
    scope.content().info(&above).unwrap();
}

#[tokio::test]
async fn a_back_reference_keeps_from_below() {
    let fixture = Fixture::new().await;
    let scope = fixture.leased("n", "writing").await;
    let manifest = put(&scope, b"manifest", &[]).await;
    let back = [("containerd.io/gc.bref.content.subject", manifest.as_str())];
    let signature = put(&scope, b"signature", &back).await;
    scope.images().create(image("i", b"manifest", &[])).await.unwrap();
    scope.leases().delete("writing").await.unwrap();
    assert!(fixture.metadata.collect().await.unwrap().blobs.is_empty());
    fixture.scope("n").images().delete("i", None).await.unwrap();
    let blobs: BTreeSet<_> = fixture.metadata.collect().await.unwrap().blobs.into_iter().collect();
    assert_eq!(blobs, [manifest, signature].into());
}

#[tokio::test]
async fn ingests_go_with_their_lease_and_stay_without_one() {
    let fixture = Fixture::new().await;
    let scope = fixture.leased("n", "l").await;
    let open =
        |reference: &str| WriterRequest { reference: reference.into(), ..Default::default() };
    let mut leased = scope.content().writer(open("leased")).await.unwrap();
    leased.write(b"half").unwrap();
    fixture.scope("n").content().writer(open("free")).await.unwrap().write(b"half").unwrap();
    let stray = fixture.content.writer("nobody's", 0, None).unwrap();
    drop(stray);
    fixture.metadata.collect().await.unwrap();
    assert_eq!(kind(fixture.content.status("nobody's")), Some(Kind::NotFound));
    assert_eq!(scope.content().statuses(&[]).unwrap().len(), 2);
    fixture.scope("n").leases().delete("l").await.unwrap();
    let collected = fixture.metadata.collect().await.unwrap();
    assert_eq!(collected.ingests, [("n".to_owned(), "leased".to_owned())]);
    assert_eq!(kind(leased.commit(0, None, labels(&[])).await), Some(Kind::Aborted));
    let left = fixture.scope("n").content().statuses(&[]).unwrap();
    assert_eq!(left.into_iter().map(|status| status.reference).collect::<Vec<_>>(), ["free"]);
}

#[tokio::test]
async fn a_blob_that_is_about_to_be_shared_stays() {
    let fixture = Fixture::new().await;
    let digest = put(&fixture.scope("one"), b"bytes", &[]).await;
    let two = fixture.leased("two", "l").await;
    let request = WriterRequest { reference: "r".into(), total: 5, expected: Some(digest.clone()) };
    let writer = two.content().writer(request).await.unwrap();
    let collected = fixture.metadata.collect().await.unwrap();
    assert_eq!((collected.content.len(), collected.blobs.len()), (1, 0));
    writer.commit(5, None, labels(&[])).await.unwrap();
    fixture.content.verify(&digest).unwrap();
}

#[tokio::test]
async fn deletions_say_that_there_is_garbage() {
    let fixture = Fixture::new().await;
    let scope = fixture.scope("n");
    scope.images().create(image("i", b"x", &[])).await.unwrap();
    scope.images().delete("i", None).await.unwrap();
    fixture.metadata.garbage().await;
}

/// Writers, unpackers and collections at once: what a lease keeps is never lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_leased_survives_concurrent_collections() {
    let fixture = Fixture::new().await;
    let mut pulls = Vec::new();
    for n in 0..6 {
        let metadata = fixture.metadata.clone();
        pulls.push(tokio::spawn(async move {
            for round in 0..10 {
                pull(&metadata, n, round).await;
            }
        }));
    }
    let metadata = fixture.metadata.clone();
    let collector = tokio::spawn(async move {
        loop {
            metadata.collect().await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    for pull in pulls {
        pull.await.unwrap();
    }
    collector.abort();
    let _ = collector.await;
    fixture.metadata.collect().await.unwrap();
    assert_eq!(files(&fixture.root.path().join("content")), 0);
    assert!(fixture.overlay.list("").await.unwrap().is_empty());
}

/// Writes a blob and a chain of two snapshots under a lease, as pulls of one image in several
/// namespaces do, checks them and lets go.
async fn pull(metadata: &berth_metadata::Metadata, n: usize, round: usize) {
    let (ns, lease) = (format!("ns-{}", n % 2), format!("lease-{n}-{round}"));
    let scope = metadata.scope(&ns, Some(&lease)).unwrap();
    scope.leases().create(Lease { id: lease.clone(), ..Default::default() }).await.unwrap();
    let bytes = b"the same for all";
    let request = WriterRequest {
        reference: lease.clone(),
        total: bytes.len() as u64,
        expected: Some(Digest::of(bytes)),
    };
    match scope.content().writer(request).await {
        Ok(mut writer) => {
            if writer.status().offset == 0 {
                writer.write(bytes).unwrap();
            }
            let committed = writer.commit(0, None, labels(&[])).await;
            assert!(matches!(kind(committed), None | Some(Kind::AlreadyExists)));
        }
        Err(error) => assert_eq!(error.kind(), Kind::AlreadyExists, "{error}"),
    }
    let snapshots = scope.snapshots("overlayfs").unwrap();
    for (key, parent) in [("chain-1", ""), ("chain-2", "chain-1")] {
        if snapshots.adopt(key).await.is_ok() {
            continue;
        }
        let work = format!("work-{lease}-{key}");
        snapshots.prepare(&work, parent, Default::default()).await.unwrap();
        match snapshots.commit(key, &work, CommitOptions::default()).await {
            Err(error) if error.kind() == Kind::AlreadyExists => {
                snapshots.remove(&work).await.unwrap();
            }
            result => result.unwrap(),
        }
    }
    scope.content().reader(&Digest::of(bytes)).unwrap();
    snapshots.stat("chain-2").await.unwrap();
    scope.leases().delete(&lease).await.unwrap();
}

/// A world of blobs and snapshots that refer to each other at random.
#[derive(Clone, Debug)]
struct World {
    /// For each blob: whether it is a root, and the blobs and snapshots that it names.
    blobs: Vec<(bool, Vec<usize>, Vec<usize>)>,
    /// For each snapshot: its parent among the earlier ones, whether it is a root, and the blobs
    /// that it names.
    snapshots: Vec<(Option<usize>, bool, Vec<usize>)>,
    /// Targets of images.
    images: Vec<usize>,
    /// What leases name: whether flat, blobs, snapshots.
    leases: Vec<(bool, Vec<usize>, Vec<usize>)>,
    /// Snapshots of containers.
    containers: Vec<usize>,
}

const SIZE: usize = 7;

fn world() -> impl Strategy<Value = World> {
    let several = || prop::collection::vec(0..SIZE, 0..3);
    let rare = || prop::bool::weighted(0.1);
    let parent = prop::option::of(0..SIZE);
    (
        prop::collection::vec((rare(), several(), several()), SIZE),
        prop::collection::vec((parent, rare(), several()), SIZE),
        prop::collection::vec(0..SIZE, 0..2),
        prop::collection::vec((any::<bool>(), several(), several()), 0..2),
        prop::collection::vec(0..SIZE, 0..2),
    )
        .prop_map(|(blobs, snapshots, images, leases, containers)| World {
            blobs,
            snapshots: snapshots
                .into_iter()
                .enumerate()
                .map(|(n, (parent, root, refs))| (parent.filter(|p| *p < n), root, refs))
                .collect(),
            images,
            leases,
            containers,
        })
}

impl World {
    /// The blobs (false) and snapshots (true) that must stay, by the definition: the least set
    /// that has the roots and is closed under references.
    fn kept(&self) -> BTreeSet<(bool, usize)> {
        let mut kept = BTreeSet::new();
        let mut flat = BTreeSet::new();
        for (n, (root, ..)) in self.blobs.iter().enumerate() {
            if *root {
                kept.insert((false, n));
            }
        }
        for (n, (_, root, _)) in self.snapshots.iter().enumerate() {
            if *root {
                kept.insert((true, n));
            }
        }
        kept.extend(self.images.iter().map(|n| (false, *n)));
        kept.extend(self.containers.iter().map(|n| (true, *n)));
        for (is_flat, blobs, snapshots) in &self.leases {
            let set = if *is_flat { &mut flat } else { &mut kept };
            set.extend(blobs.iter().map(|n| (false, *n)));
            set.extend(snapshots.iter().map(|n| (true, *n)));
        }
        loop {
            let before = kept.len() + flat.len();
            for (is_snapshot, n) in kept.clone() {
                if is_snapshot {
                    let (parent, _, blobs) = &self.snapshots[n];
                    kept.extend(parent.iter().map(|p| (true, *p)));
                    kept.extend(blobs.iter().map(|b| (false, *b)));
                } else {
                    kept.extend(self.blobs[n].1.iter().map(|b| (false, *b)));
                    kept.extend(self.blobs[n].2.iter().map(|s| (true, *s)));
                }
            }
            for (is_snapshot, n) in flat.clone() {
                if is_snapshot {
                    flat.extend(self.snapshots[n].0.iter().map(|p| (true, *p)));
                }
            }
            if kept.len() + flat.len() == before {
                kept.append(&mut flat);
                return kept;
            }
        }
    }

    async fn build(&self, fixture: &Fixture) {
        let scope = fixture.leased("n", "building").await;
        let digest = |n: usize| Digest::of(&blob(n)).to_string();
        for (n, (root, blobs, snapshots)) in self.blobs.iter().enumerate() {
            let mut with: HashMap<String, String> = HashMap::new();
            for (i, b) in blobs.iter().enumerate() {
                with.insert(format!("containerd.io/gc.ref.content.{i}"), digest(*b));
            }
            for (i, s) in snapshots.iter().enumerate() {
                let label = format!("containerd.io/gc.ref.snapshot.overlayfs/{i}");
                with.insert(label, format!("s{s}"));
            }
            if *root {
                with.insert(ROOT.into(), "yes".into());
            }
            let with: Vec<_> = with.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            put(&scope, &blob(n), &with).await;
        }
        let snapshots = scope.snapshots("overlayfs").unwrap();
        for (n, (parent, root, blobs)) in self.snapshots.iter().enumerate() {
            let mut options = CommitOptions::default();
            for (i, b) in blobs.iter().enumerate() {
                options.labels.insert(format!("containerd.io/gc.ref.content.{i}"), digest(*b));
            }
            if *root {
                options.labels.insert(ROOT.into(), "yes".into());
            }
            let parent = parent.map_or(String::new(), |p| format!("s{p}"));
            snapshots.prepare("work", &parent, Default::default()).await.unwrap();
            snapshots.commit(&format!("s{n}"), "work", options).await.unwrap();
        }
        self.build_roots(&fixture.scope("n")).await;
        scope.leases().delete("building").await.unwrap();
    }

    async fn build_roots(&self, scope: &berth_metadata::Scope) {
        for (i, n) in self.images.iter().enumerate() {
            scope.images().create(image(&format!("i{i}"), &blob(*n), &[])).await.unwrap();
        }
        for (i, n) in self.containers.iter().enumerate() {
            let new = container(&format!("c{i}"), &format!("s{n}"));
            scope.containers().create(new).await.unwrap();
        }
        for (i, (flat, blobs, snapshots)) in self.leases.iter().enumerate() {
            let id = format!("l{i}");
            let with: &[(&str, &str)] = if *flat { &[("containerd.io/gc.flat", "y")] } else { &[] };
            let lease = Lease { id: id.clone(), labels: labels(with), created_at: None };
            scope.leases().create(lease).await.unwrap();
            for n in blobs {
                let digest = Digest::of(&blob(*n)).to_string();
                let resource = Resource { kind: "content".into(), id: digest };
                scope.leases().add_resource(&id, resource).await.unwrap();
            }
            for n in snapshots {
                let resource = Resource { kind: "snapshots/overlayfs".into(), id: format!("s{n}") };
                scope.leases().add_resource(&id, resource).await.unwrap();
            }
        }
    }
}

fn blob(n: usize) -> Vec<u8> {
    format!("blob {n}").into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn exactly_the_unreferenced_goes(world in world()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (expected, found) = runtime.block_on(async {
            let fixture = Fixture::new().await;
            world.build(&fixture).await;
            fixture.metadata.collect().await.unwrap();
            let mut found = BTreeSet::new();
            for n in 0..SIZE {
                let digest = Digest::of(&blob(n));
                let row = fixture.scope("n").content().info(&digest).is_ok();
                assert_eq!(row, fixture.content.info(&digest).is_ok(), "row and bytes of blob {n}");
                if row {
                    found.insert((false, n));
                }
                if fixture.overlay.stat(&format!("n/s{n}")).await.is_ok() {
                    found.insert((true, n));
                }
            }
            (world.kept(), found)
        });
        prop_assert_eq!(expected, found);
    }
}
