//! Blobs that a pull drops, and that come back.

use berth_types::image::Descriptor;
use berth_types::{Digest, Kind};

use crate::docker::{DockerRegistry, Options};
use crate::fixture::{Fixture, NAMESPACE, snapshotter};
use crate::image::{LayerBuilder, TestImage, layered, noise};

/// Whether each blob is there.
fn there(fixture: &Fixture, digests: &[Digest]) -> Vec<bool> {
    let scope = fixture.scope(NAMESPACE);
    digests.iter().map(|digest| scope.content().info(digest).is_ok()).collect()
}

fn digests(image: &TestImage) -> Vec<Digest> {
    image.layers.iter().map(|layer| layer.descriptor().digest).collect()
}

/// Whether each of the blobs is there while the layers of the image at `target` are needed.
async fn restored(
    fixture: &Fixture,
    target: Descriptor,
    blobs: &[Digest],
) -> berth_types::Result<Vec<bool>> {
    let (scope, blobs) = (fixture.scope(NAMESPACE), blobs.to_vec());
    let look = async move || {
        Ok(blobs.iter().map(|digest| scope.content().reader(digest).is_ok()).collect())
    };
    fixture.puller.with_layers(NAMESPACE, vec![target], Vec::new(), look).await
}

#[tokio::test]
async fn blobs_are_made_of_images_or_fetched_again() {
    let registry = DockerRegistry::start(Options::default());
    let image = layered();
    let reference = image.push(&registry, "some/image").await;
    let fixture = Fixture::discarding().await;
    fixture.pull(&reference).await.unwrap();
    let layers = digests(&image);
    assert_eq!(there(&fixture, &layers), [false; 4]);
    assert_eq!(fixture.snapshots().await.len(), 4);
    assert_eq!(fixture.metadata.collect().await.unwrap(), Default::default());

    let fetches = |digest: &Digest| registry.fetches(&format!("blobs/{digest}"));
    fixture.pull(&reference).await.unwrap();
    assert!(layers.iter().all(|digest| fetches(digest) == 1));

    assert_eq!(restored(&fixture, image.descriptor(), &layers).await.unwrap(), [true; 4]);
    // The third links to files of lower layers, so that its image holds them too.
    let again = match snapshotter() {
        "erofs" => [1, 1, 2, 1],
        _ => [2; 4],
    };
    assert_eq!(layers.iter().map(fetches).collect::<Vec<_>>(), again);
    assert_eq!(there(&fixture, &layers), [false; 4]);
    let scope = fixture.scope(NAMESPACE);
    assert_eq!(scope.leases().list(&[]).unwrap(), []);
    scope.images().delete(&reference, None).await.unwrap();
    fixture.assert_empty().await;
}

#[tokio::test]
async fn a_layer_that_images_share_is_fetched_once() {
    let registry = DockerRegistry::start(Options::default());
    let shared = || LayerBuilder::new().file("a", &noise(1, 5000)).end().gzip();
    let more = LayerBuilder::new().file("b", b"b").end().zstd();
    let one = TestImage::new("amd64", vec![shared()]);
    let two = TestImage::new("amd64", vec![shared(), more]);
    let one_reference = one.push(&registry, "one").await;
    let two_reference = two.push(&registry, "two").await;
    let fixture = Fixture::discarding().await;
    fixture.pull(&one_reference).await.unwrap();
    fixture.pull(&two_reference).await.unwrap();
    let layers = digests(&two);
    assert_eq!(there(&fixture, &layers), [false, false]);
    assert_eq!(registry.fetches(&format!("blobs/{}", layers[0])), 1);
    // How it is packed was noted with the first image, which may go.
    fixture.scope(NAMESPACE).images().delete(&one_reference, None).await.unwrap();
    fixture.metadata.collect().await.unwrap();
    assert_eq!(restored(&fixture, two.descriptor(), &layers).await.unwrap(), [true, true]);
    let fetches = if snapshotter() == "erofs" { 1 } else { 2 };
    assert_eq!(registry.fetches(&format!("blobs/{}", layers[0])), fetches);
}

#[tokio::test]
async fn what_can_not_be_had_again_is_said() {
    let registry = DockerRegistry::start(Options::default());
    let image = layered();
    let reference = image.push(&registry, "some/image").await;
    let fixture = Fixture::discarding().await;
    fixture.pull(&reference).await.unwrap();
    drop(registry);
    let layers = digests(&image);
    let error = restored(&fixture, image.descriptor(), &layers).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    assert!(error.message().contains("discard_unpacked_layers"), "{error}");
    fixture.metadata.collect().await.unwrap();
    assert_eq!(there(&fixture, &layers), [false; 4]);
}
