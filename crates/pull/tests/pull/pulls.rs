//! Pulls that succeed: what is there afterwards, and what was fetched for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use berth_pull::{Phase, Progress, read};
use berth_snapshotter::Kind;
use berth_types::Digest;
use berth_types::image::{Descriptor, media_type};
use serde_json::json;

use crate::docker::{DockerRegistry, Options};
use crate::fixture::{Fixture, NAMESPACE, request, snapshotter};
use crate::image::{LayerBuilder, TestImage, layered};

#[tokio::test]
async fn a_pulled_image_is_whole_and_kept() {
    let registry = DockerRegistry::start(Options::default());
    let image = layered();
    let reference = image.push(&registry, "some/image").await;
    let fixture = Fixture::new().await;
    let record = fixture.pull(&reference).await.unwrap();
    assert_eq!(record.name, reference);
    assert_eq!(record.target.unwrap().digest, image.descriptor().digest.to_string());

    let scope = fixture.scope(NAMESPACE);
    let target = image.descriptor();
    let resolved = read(&scope, &target, &"linux/amd64".parse().unwrap()).await.unwrap();
    assert_eq!(resolved.image.config.cmd, ["/hello"]);
    let chain: Vec<_> = resolved.layers.iter().map(|l| l.chain_id.to_string()).collect();
    let mut parent = String::new();
    for chain_id in &chain {
        let snapshot = scope.snapshots(snapshotter()).unwrap().stat(chain_id).await.unwrap();
        assert_eq!((snapshot.kind, &snapshot.parent), (Kind::Committed, &parent));
        parent = chain_id.clone();
    }
    assert_eq!(fixture.snapshots().await.len(), 4);
    assert_eq!(scope.leases().list(&[]).unwrap(), []);
    assert_eq!(scope.content().statuses(&[]).unwrap(), []);

    // Labels alone keep it now.
    assert_eq!(fixture.metadata.collect().await.unwrap(), Default::default());
    let labels = |digest: &Digest| scope.content().info(digest).unwrap().labels;
    let of_manifest = labels(&target.digest);
    assert_eq!(
        of_manifest["containerd.io/gc.ref.content.l.3"],
        resolved.layers[3].blob.digest.to_string()
    );
    assert_eq!(
        of_manifest["containerd.io/gc.ref.content.config"],
        resolved.config.digest.to_string()
    );
    let source = "containerd.io/distribution.source.127.0.0.1";
    assert_eq!(of_manifest.get(source).map(String::as_str), Some("some/image"));
    let of_config = labels(&resolved.config.digest);
    assert_eq!(of_config[&format!("containerd.io/gc.ref.snapshot.{}", snapshotter())], chain[3]);
    let of_layer = labels(&resolved.layers[1].blob.digest);
    assert_eq!(of_layer["containerd.io/uncompressed"], resolved.layers[1].diff_id.to_string());

    // Without the image all of it goes.
    scope.images().delete(&reference, None).await.unwrap();
    fixture.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pulls_fetch_each_blob_once() {
    let registry = DockerRegistry::start(Options::default());
    let image = layered();
    let reference = image.push(&registry, "a").await;
    let fixture = Arc::new(Fixture::new().await);
    let pulls = (0..50).map(|number| {
        let (fixture, reference) = (fixture.clone(), reference.clone());
        let namespace = if number % 2 == 0 { NAMESPACE } else { "other" };
        tokio::spawn(async move { fixture.pull_for(namespace, &reference, "linux/amd64").await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        pull.await.unwrap().unwrap();
    }
    let mut digests: Vec<_> = image.layers.iter().map(|layer| layer.descriptor().digest).collect();
    digests.push(Digest::of(&image.config));
    for digest in &digests {
        assert_eq!(registry.fetches(&format!("blobs/{digest}")), 1, "{digest}");
    }
    assert_eq!(registry.fetches(&format!("manifests/{}", image.descriptor().digest)), 1);
    assert_eq!(fixture.snapshots().await.len(), 4);
    // Each is unpacked once in either namespace, but for the one that links to others, which is
    // tried without them first: directories are numbered as they are made.
    let directories = std::fs::read_dir(fixture.path().join("snapshots")).unwrap();
    let numbers = directories.map(|entry| entry.unwrap().file_name());
    let mut numbers: Vec<u64> =
        numbers.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!((numbers.len(), numbers.last()), (8, Some(&10)));

    // Again, and under another name with one more layer: only what is new is fetched.
    fixture.pull(&reference).await.unwrap();
    let mut layers = image.layers.clone();
    layers.push(LayerBuilder::new().file("more", b"more").end().gzip());
    let larger = TestImage::new("amd64", layers);
    let reference = larger.push(&registry, "b").await;
    fixture.pull(&reference).await.unwrap();
    let new = larger.layers[4].descriptor().digest;
    assert_eq!(registry.fetches(&format!("blobs/{new}")), 1);
    for digest in &digests[..4] {
        assert_eq!(registry.fetches(&format!("blobs/{digest}")), 1, "{digest}");
    }
    assert_eq!(fixture.snapshots().await.len(), 5);
    let source = "containerd.io/distribution.source.127.0.0.1";
    let shared = fixture.scope(NAMESPACE).content().info(&digests[0]).unwrap();
    assert_eq!(shared.labels[source], "a,b");
}

#[tokio::test]
async fn an_index_gives_the_image_for_the_platform() {
    let registry = DockerRegistry::start(Options::default());
    let image = |architecture: &str| {
        let layer = LayerBuilder::new().file("hello", architecture.as_bytes()).end().gzip();
        TestImage::new(architecture, vec![layer])
    };
    let (amd, arm) = (image("amd64"), image("arm64"));
    let index = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [arm.entry("linux/arm64"), amd.entry("linux/amd64")],
    });
    amd.push(&registry, "a").await;
    let reference = arm.push(&registry, "a").await;
    let bytes = serde_json::to_vec(&index).unwrap();
    let index = registry.put_manifest("a", "v1", media_type::OCI_INDEX, &bytes).await;

    let fixture = Fixture::new().await;
    fixture.pull(&reference).await.unwrap();
    let scope = fixture.scope(NAMESPACE);
    assert!(scope.content().info(&amd.descriptor().digest).is_ok());
    assert!(scope.content().info(&arm.descriptor().digest).is_err());
    fixture.pull_for(NAMESPACE, &reference, "linux/arm64").await.unwrap();
    let labels = scope.content().info(&index.digest).unwrap().labels;
    assert_eq!(labels["containerd.io/gc.ref.content.m.0"], arm.descriptor().digest.to_string());
    assert_eq!(labels["containerd.io/gc.ref.content.m.1"], amd.descriptor().digest.to_string());
    assert_eq!(fixture.metadata.collect().await.unwrap(), Default::default());

    let error = fixture.pull_for(NAMESPACE, &reference, "linux/s390x").await.unwrap_err();
    assert_eq!(error.kind(), berth_types::Kind::NotFound);
    assert!(error.message().contains("linux/amd64, linux/arm64"), "{error}");
}

#[tokio::test]
async fn progress_is_told_for_each_layer() {
    let registry = DockerRegistry::start(Options::default());
    let image = layered();
    let reference = image.push(&registry, "a").await;
    let fixture = Fixture::new().await;
    type Told = BTreeMap<Digest, Vec<(Phase, u64)>>;
    let seen: Arc<Mutex<Told>> = Arc::default();
    let listener = seen.clone();
    let progress = Progress::new(move |told| {
        let mut seen = listener.lock().unwrap();
        seen.entry(told.digest).or_default().push((told.phase, told.current));
        assert!(told.current <= told.total);
    });
    let request = request(NAMESPACE, &reference, "linux/amd64");
    fixture.puller.pull(request.clone(), progress.clone()).await.unwrap();
    for layer in &image.layers {
        let Descriptor { digest, size, .. } = layer.descriptor();
        let told = seen.lock().unwrap().remove(&digest).unwrap();
        assert_eq!(told.first(), Some(&(Phase::Waiting, 0)));
        assert!(told.contains(&(Phase::Downloading, size)), "{told:?}");
        assert_eq!(told.last(), Some(&(Phase::Done, size)));
    }
    fixture.puller.pull(request, progress).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.values().all(|told| told.last().unwrap().0 == Phase::Exists), "{seen:?}");
}

#[tokio::test]
async fn content_that_a_client_put_there_is_unpacked() {
    let registry = DockerRegistry::start(Options::default());
    let image = layered();
    let reference = image.push(&registry, "a").await;
    let fixture = Fixture::new().await;
    fixture.pull(&reference).await.unwrap();
    let scope = fixture.scope(NAMESPACE);
    // As after a client's fetch: the content and the record, without snapshots.
    remove_all(&fixture).await;
    let platform = "linux/amd64".parse().unwrap();
    let unpack = || {
        let silent = Progress::silent();
        let target = image.descriptor();
        let (puller, platform) = (fixture.puller.clone(), &platform);
        async move { puller.unpack(NAMESPACE, &target, platform, snapshotter(), silent).await }
    };
    let resolved = unpack().await.unwrap();
    assert_eq!(fixture.snapshots().await.len(), 4);
    assert!(unpack().await.is_ok());
    assert_eq!(scope.leases().list(&[]).unwrap(), []);
    assert_eq!(fixture.metadata.collect().await.unwrap(), Default::default());

    // What is unpacked needs no blob; what isn't can't be without it.
    let layer = &resolved.layers[0].blob.digest;
    scope.content().delete(layer).await.unwrap();
    fixture.metadata.collect().await.unwrap();
    unpack().await.unwrap();
    remove_all(&fixture).await;
    let error = unpack().await.unwrap_err();
    assert_eq!(error.kind(), berth_types::Kind::FailedPrecondition, "{error}");
    assert!(error.message().contains(layer.as_str()), "{error}");
}

/// Removes all snapshots, those without children first.
async fn remove_all(fixture: &Fixture) {
    let scope = fixture.scope(NAMESPACE);
    let mut keys: Vec<_> = fixture.snapshots().await.into_iter().map(|info| info.key).collect();
    while let Some(key) = keys.pop() {
        if scope.snapshots(snapshotter()).unwrap().remove(&key).await.is_err() {
            keys.insert(0, key);
        }
    }
    assert_eq!(fixture.snapshots().await, []);
}
