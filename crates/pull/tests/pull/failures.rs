//! Pulls that fail: with the right error, leaving nothing, and not in the way of the next one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use berth_pull::Blobs;
use berth_types::{Digest, Kind};
use rustix::fs::statvfs;

use crate::docker::{DockerRegistry, Options};
use crate::fixture::{Fixture, NAMESPACE};
use crate::hostile::{Reply, Server, Then};
use crate::image::{LayerBuilder, TestImage, layered, noise};
use crate::served::{answer, parts};

#[tokio::test]
async fn an_unknown_image_is_not_found() {
    let registry = DockerRegistry::start(Options::default());
    let fixture = Fixture::new().await;
    let error = fixture.pull(&format!("{}/nothing:here", registry.domain)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    fixture.assert_empty().await;
}

#[tokio::test]
async fn damaged_layers_are_refused() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(Damage, Kind); 3] = [
        // A stored block of noise: gzip's checksum notices, or only the digest does.
        (
            |blob| {
                let middle = blob.len() / 2;
                blob[middle] ^= 1
            },
            Kind::InvalidArgument,
        ),
        (|blob| blob.truncate(blob.len() / 2), Kind::FailedPrecondition),
        (|blob| blob.extend_from_slice(b"trailing"), Kind::FailedPrecondition),
    ];
    for (damage, kind) in damages {
        let registry = DockerRegistry::start(Options::default());
        let image = layered();
        let reference = image.push(&registry, "a").await;
        let stored = registry.stored(&image.layers[3].descriptor().digest);
        let good = fs::read(&stored).unwrap();
        let mut bad = good.clone();
        damage(&mut bad);
        fs::write(&stored, bad).unwrap();
        let fixture = Fixture::new().await;
        let error = fixture.pull(&reference).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        fixture.assert_empty().await;

        fs::write(&stored, good).unwrap();
        fixture.pull(&reference).await.unwrap();
    }
}

#[tokio::test]
async fn a_layer_of_another_digest_is_refused_even_if_it_unpacks() {
    let registry = DockerRegistry::start(Options::default());
    let layer = LayerBuilder::new().file("a", b"right").end();
    let image = TestImage::new("amd64", vec![layer]);
    let reference = image.push(&registry, "a").await;
    let evil = LayerBuilder::new().file("a", b"wrong").end();
    assert_eq!(evil.blob.len(), image.layers[0].blob.len());
    fs::write(registry.stored(&image.layers[0].descriptor().digest), evil.blob).unwrap();
    let fixture = Fixture::new().await;
    let error = fixture.pull(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    fixture.assert_empty().await;
}

#[tokio::test]
async fn a_config_that_lies_about_a_layer_is_refused() {
    let registry = DockerRegistry::start(Options::default());
    let layers = layered().layers;
    let mut diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(&layer.tar)).collect();
    diff_ids[1] = Digest::of(b"something else");
    let image = TestImage::with_diff_ids("amd64", layers, &diff_ids);
    let reference = image.push(&registry, "a").await;
    let fixture = Fixture::new().await;
    let error = fixture.pull(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    assert!(error.message().contains("broken"), "{error}");
    fixture.assert_empty().await;
}

#[tokio::test]
async fn a_hostile_layer_is_refused() {
    let registry = DockerRegistry::start(Options::default());
    let mut layer = LayerBuilder::new().file("xx/escape", b"x").end();
    let at = layer.tar.windows(2).position(|window| window == b"xx").unwrap();
    layer.tar[at..at + 2].copy_from_slice(b"..");
    // The header's checksum covers the name.
    let sum: u32 = layer.tar[..148].iter().chain(&layer.tar[156..512]).map(|b| u32::from(*b)).sum();
    layer.tar[148..156].copy_from_slice(format!("{:06o}\0 ", sum + 8 * 32).as_bytes());
    let image = TestImage::new("amd64", vec![layer.gzip()]);
    let reference = image.push(&registry, "a").await;
    let fixture = Fixture::new().await;
    let error = fixture.pull(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    fixture.assert_empty().await;
}

/// More layers than are fetched at once, of which the registry sends no byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stalls_holds_up_no_other() {
    let layer = |seed| LayerBuilder::new().file("noise", &noise(seed, 10_000)).end().gzip();
    let image = TestImage::new("amd64", (1..20).map(layer).collect());
    let all = parts(&image);
    let config = format!("blobs/{}", Digest::of(&image.config));
    let stalling = Server::start(move |request, _| {
        let reply = answer(&all, request);
        match request.path.contains("/blobs/") && !request.path.ends_with(&config) {
            true => Reply { bytes: Vec::new(), then: Then::Stall },
            false => reply,
        }
    })
    .await;
    let fixture = Arc::new(Fixture::new().await);
    let (held_up, reference) = (fixture.clone(), format!("{}/a:v1", stalling.domain));
    let pull = tokio::spawn(async move { held_up.pull(&reference).await });
    let of_layers = || {
        let requests = stalling.requests();
        requests.iter().filter(|request| request.path.contains("/blobs/")).count().saturating_sub(1)
    };
    while stalling.requests().len() < 3 || of_layers() < 3 {
        tokio::task::yield_now().await;
    }
    let registry = DockerRegistry::start(Options::default());
    let good = layered().push(&registry, "a").await;
    fixture.pull(&good).await.unwrap();
    assert!(!pull.is_finished());
    fixture.puller.stop().await;
    assert_eq!(pull.await.unwrap().unwrap_err().kind(), Kind::Cancelled);
}

/// A small filesystem of its own, unmounted with this value.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    fn new(megabytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("disk");
        fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        fs::create_dir(directory.path().join("mnt")).unwrap();
        let disk = Self { directory };
        run("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
        run("mount", &["-o", "loop", image.to_str().unwrap(), disk.root().to_str().unwrap()]);
        disk
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &["-l", self.root().to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

fn free(path: &Path) -> u64 {
    let stat = statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

#[tokio::test]
async fn a_full_disk_is_said_and_given_back() {
    let registry = DockerRegistry::start(Options::default());
    let layer = |seed| LayerBuilder::new().file(&format!("{seed}"), &noise(seed, 12 << 20)).end();
    let image = TestImage::new("amd64", (1..5).map(|seed| layer(seed).gzip()).collect());
    let reference = image.push(&registry, "large").await;
    let small = layered().push(&registry, "small").await;

    let disk = SmallDisk::new(64);
    let fixture = Fixture::open(&disk.root(), Blobs::Keep).await;
    let before = free(&disk.root());
    let error = fixture.pull(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    fixture.assert_empty().await;
    // What the database grew by stays.
    assert!(before - free(&disk.root()) < 4 << 20, "{before} {}", free(&disk.root()));
    fixture.pull(&small).await.unwrap();
    assert_eq!(fixture.scope(NAMESPACE).images().list(&[]).unwrap().len(), 1);
}
