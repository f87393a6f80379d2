//! What must hold in the stores at any time.

use std::collections::BTreeSet;
use std::fs;

use berth_pull::{Blobs, read};
use berth_snapshotter::Kind;
use berth_types::Digest;
use berth_types::image::Descriptor;

use crate::fixture::{Fixture, NAMESPACE, snapshotter};

/// Asserts that the stores contradict neither themselves nor each other. True when the image is
/// there.
pub(crate) async fn is_whole(fixture: &Fixture) -> bool {
    for digest in blobs(fixture) {
        fixture.content.verify(&digest).unwrap();
    }
    let scope = fixture.scope(NAMESPACE);
    for info in scope.content().list(&[]).unwrap() {
        let blob = fixture.content.info(&info.digest.parse().unwrap()).unwrap();
        assert_eq!(blob.size, info.size as u64);
    }
    assert!(fixture.metadata.strays().await.unwrap().is_empty());
    snapshots_are_whole(fixture).await;
    let images = scope.images().list(&[]).unwrap();
    for image in &images {
        let target = image.target.clone().unwrap();
        let target =
            Descriptor::new(target.media_type, target.digest.parse().unwrap(), target.size as u64);
        let image = read(&scope, &target, &"linux/amd64".parse().unwrap()).await.unwrap();
        for layer in &image.layers {
            if fixture.blobs == Blobs::Keep {
                assert!(scope.content().info(&layer.blob.digest).is_ok());
            }
            let snapshots = scope.snapshots(snapshotter()).unwrap();
            let snapshot = snapshots.stat(layer.chain_id.as_str()).await.unwrap();
            assert_eq!(snapshot.kind, Kind::Committed);
        }
    }
    !images.is_empty()
}

async fn snapshots_are_whole(fixture: &Fixture) {
    let scope = fixture.scope(NAMESPACE);
    let snapshots = fixture.snapshots().await;
    for info in &snapshots {
        assert_eq!(info.kind, Kind::Committed, "{} is unfinished", info.key);
        let found = scope.snapshots(snapshotter()).unwrap().check(&info.key).await.unwrap();
        assert_eq!(found, None, "{}", info.key);
        // An image that is cut short can't be mounted.
        let layers = scope.snapshots(snapshotter()).unwrap().layers(&info.key).await.unwrap();
        assert!(!layers.is_empty());
    }
    let directories = fs::read_dir(fixture.path().join("snapshots")).unwrap().count();
    assert_eq!(directories, snapshots.len(), "a directory for each snapshot");
}

/// The blobs that are there.
pub(crate) fn blobs(fixture: &Fixture) -> BTreeSet<Digest> {
    let mut blobs = BTreeSet::new();
    fixture
        .content
        .walk(|info| {
            blobs.insert(info.digest);
            Ok(())
        })
        .unwrap();
    blobs
}
