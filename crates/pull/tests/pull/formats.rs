//! Manifests, indexes and layers of all kinds.

use berth_pull::read;
use berth_types::Kind;
use berth_types::image::{Descriptor, media_type};
use serde_json::{Value, json};

use crate::docker::{DockerRegistry, Options};
use crate::fixture::{Fixture, NAMESPACE};
use crate::hostile::Server;
use crate::image::{Layer, LayerBuilder, TestImage};
use crate::served::{answer, parts};

fn layer(content: &str) -> Layer {
    LayerBuilder::new().file("hello", content.as_bytes()).end()
}

/// Stores an index under the tag `v1` of the repository `a`.
async fn put_index(registry: &DockerRegistry, kind: &str, entries: &[Descriptor]) -> Descriptor {
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries});
    let bytes = serde_json::to_vec(&index).unwrap();
    registry.put_manifest("a", "v1", kind, &bytes).await
}

#[tokio::test]
async fn every_compression_in_ocis_and_dockers_manifests() {
    let registry = DockerRegistry::start(Options::default());
    let layers = || vec![layer("a").gzip(), layer("b"), layer("c").zstd()];
    let dockers = || vec![layer("d").gzip(), layer("e")];
    let images = [TestImage::new("amd64", layers()), TestImage::dockers("amd64", dockers())];
    for image in images {
        let reference = image.push(&registry, "a").await;
        let fixture = Fixture::new().await;
        let record = fixture.pull(&reference).await.unwrap();
        let target = image.descriptor();
        assert_eq!(record.target.unwrap().media_type, target.media_type);
        let scope = fixture.scope(NAMESPACE);
        let resolved = read(&scope, &target, &"linux/amd64".parse().unwrap()).await.unwrap();
        assert_eq!(resolved.layers.len(), image.layers.len());
        assert_eq!(fixture.snapshots().await.len(), image.layers.len());
    }
}

#[tokio::test]
async fn a_layer_is_what_its_bytes_are() {
    let registry = DockerRegistry::start(Options::default());
    let mut gzip_called_plain = layer("a");
    gzip_called_plain.blob = layer("a").gzip().blob;
    let image = TestImage::new("amd64", vec![gzip_called_plain]);
    let reference = image.push(&registry, "a").await;
    let fixture = Fixture::new().await;
    fixture.pull(&reference).await.unwrap();
    assert_eq!(fixture.snapshots().await.len(), 1);
}

#[tokio::test]
async fn an_index_gives_the_variant_that_fits_best() {
    let registry = DockerRegistry::start(Options::default());
    for kind in [media_type::OCI_INDEX, media_type::DOCKER_INDEX] {
        let image = |content: &str| match kind {
            media_type::DOCKER_INDEX => TestImage::dockers("arm", vec![layer(content)]),
            _ => TestImage::new("arm", vec![layer(content)]),
        };
        let (five, six, other) = (image("five"), image("six"), image("other"));
        for image in [&five, &six, &other] {
            image.push(&registry, "a").await;
        }
        let entries =
            [other.entry("linux/s390x"), five.entry("linux/arm/v5"), six.entry("linux/arm/v6")];
        put_index(&registry, kind, &entries).await;
        let fixture = Fixture::new().await;
        let reference = format!("{}/a:v1", registry.domain);
        // The seventh runs what is for the ones before it, and the newest of those best.
        fixture.pull_for(NAMESPACE, &reference, "linux/arm/v7").await.unwrap();
        let has = |image: &TestImage| {
            fixture.scope(NAMESPACE).content().info(&image.descriptor().digest).is_ok()
        };
        assert_eq!([&five, &six, &other].map(has), [false, true, false]);
    }
}

#[tokio::test]
async fn another_platform_is_not_found_and_leaves_nothing() {
    let registry = DockerRegistry::start(Options::default());
    let image = TestImage::new("arm64", vec![layer("a")]);
    let reference = image.push(&registry, "a").await;
    let fixture = Fixture::new().await;
    let pull_and_fail = || async {
        let error = fixture.pull(&reference).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        assert!(error.message().contains("linux/amd64; there is linux/arm64"), "{error}");
        fixture.assert_empty().await;
    };
    pull_and_fail().await;
    put_index(&registry, media_type::OCI_INDEX, &[image.entry("linux/arm64")]).await;
    pull_and_fail().await;
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let image = TestImage::new("amd64", vec![layer("a")]);
    let good: Value = serde_json::from_slice(&image.manifest).unwrap();
    let change = |pointer: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    };
    let mut both = good.clone();
    both["manifests"] = json!([]);
    let encrypted = format!("{}+encrypted", media_type::OCI_LAYER_GZIP);
    let too_many = vec![json!(image.layers[0].descriptor()); 10_000];
    let cases = [
        (both, Kind::InvalidArgument),
        (change("/config/mediaType", json!("application/vnd.helm.config")), Kind::NotFound),
        (change("/layers/0/mediaType", json!(encrypted)), Kind::Unimplemented),
        (change("/layers", json!([])), Kind::InvalidArgument),
        (change("/layers", json!(too_many)), Kind::InvalidArgument),
        (change("/layers/0/size", json!(7)), Kind::FailedPrecondition),
        (change("/config/size", json!(50 << 20)), Kind::InvalidArgument),
        (json!({"schemaVersion": 2, "padding": "x".repeat(5 << 20)}), Kind::InvalidArgument),
    ];
    for (manifest, kind) in cases {
        let mut image = TestImage::new("amd64", vec![layer("a")]);
        image.manifest = serde_json::to_vec(&manifest).unwrap();
        let parts = parts(&image);
        let server = Server::start(move |request, _| answer(&parts, request)).await;
        let fixture = Fixture::new().await;
        let error = fixture.pull(&format!("{}/a:v1", server.domain)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        fixture.assert_empty().await;
    }
}

/// What a registry says of a document is compared with what the document says of itself.
#[tokio::test]
async fn a_lie_about_a_type_is_refused() {
    let lies = [
        (media_type::OCI_INDEX, Kind::InvalidArgument),
        (media_type::DOCKER_MANIFEST, Kind::InvalidArgument),
        // Taken for the name of a blob, which there is not.
        ("text/html", Kind::NotFound),
    ];
    for (lie, kind) in lies {
        let image = TestImage::new("amd64", vec![layer("a")]);
        let parts = parts(&image);
        let server = Server::start(move |request, _| {
            let mut reply = answer(&parts, request);
            let told = format!("content-type: {}", media_type::OCI_MANIFEST).into_bytes();
            let lying = format!("content-type: {lie}").into_bytes();
            if let Some(at) = reply.bytes.windows(told.len()).position(|window| window == told) {
                reply.bytes.splice(at..at + told.len(), lying);
            }
            reply
        })
        .await;
        let fixture = Fixture::new().await;
        let error = fixture.pull(&format!("{}/a:v1", server.domain)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{lie}: {error}");
        fixture.assert_empty().await;
    }
}
