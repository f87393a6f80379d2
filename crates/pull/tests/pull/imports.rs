//! Images from archives: OCI layouts and what `docker save` wrote over the years.

use berth_pull::read;
use berth_types::Kind;
use berth_types::image::media_type;
use serde_json::json;

use crate::fixture::{Fixture, NAMESPACE};
use crate::image::{archive, layered, layout};

#[tokio::test]
async fn an_oci_layout_is_imported() {
    let image = layered();
    let cases = [
        ("io.containerd.image.name", "docker.io/library/a:b", "docker.io/library/a:b"),
        ("org.opencontainers.image.ref.name", "a:b", "docker.io/library/a:b"),
    ];
    for (key, name, full) in cases {
        let fixture = Fixture::new().await;
        let images = fixture.import(layout(&image, &[(key, name)])).await.unwrap();
        assert_eq!(images.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), [full]);
        assert_eq!(fixture.snapshots().await.len(), 4);
        // The archive's own description is garbage, the image is not.
        let collected = fixture.metadata.collect().await.unwrap();
        assert_eq!((collected.blobs.len(), collected.snapshots.len()), (1, 0));
        let platform = "linux/amd64".parse().unwrap();
        let scope = fixture.scope(NAMESPACE);
        assert!(read(&scope, &image.descriptor(), &platform).await.is_ok());
        assert_eq!(scope.leases().list(&[]).unwrap(), []);
    }
}

#[tokio::test]
async fn what_docker_saved_is_imported() {
    let image = layered();
    let mut files = vec![("abc.json".to_owned(), image.config.clone())];
    let layer = |n: usize| format!("layer{n}/layer.tar");
    for (n, one) in image.layers.iter().enumerate().filter(|(n, _)| *n != 1) {
        files.push((layer(n), one.tar.clone()));
    }
    files.push(("shared/layer.tar".to_owned(), image.layers[1].tar.clone()));
    let list = json!([{
        "Config": "abc.json", "RepoTags": ["a:1", "localhost:5000/b:2"],
        "Layers": (0..4).map(layer).collect::<Vec<_>>(),
    }]);
    files.push(("manifest.json".to_owned(), serde_json::to_vec(&list).unwrap()));
    let archive = archive(&files, &[("layer1/layer.tar", "../shared/layer.tar")]);
    let fixture = Fixture::new().await;
    let images = fixture.import(archive).await.unwrap();
    let names: Vec<_> = images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["docker.io/library/a:1", "localhost:5000/b:2"]);
    assert_eq!(fixture.snapshots().await.len(), 4);
    assert_eq!(images[0].target.as_ref().unwrap().media_type, media_type::DOCKER_MANIFEST);
}

#[tokio::test]
async fn broken_archives_leave_nothing() {
    let image = layered();
    let named = [("io.containerd.image.name", "docker.io/library/a:b")];
    let whole = layout(&image, &named);
    let truncated = whole[..whole.len() / 2].to_vec();
    let mut damaged = whole.clone();
    let at = damaged.len() / 4;
    damaged[at] ^= 0xff;
    let incomplete = archive(
        &[("manifest.json".to_owned(), br#"[{"Config":"x.json","RepoTags":["a"]}]"#.to_vec())],
        &[],
    );
    let cases = [
        (truncated, Kind::DataLoss),
        (damaged, Kind::FailedPrecondition),
        (layout(&image, &[]), Kind::InvalidArgument),
        (layout(&image, &[("io.containerd.image.name", "../evil")]), Kind::InvalidArgument),
        (archive(&[], &[]), Kind::InvalidArgument),
        (incomplete, Kind::InvalidArgument),
    ];
    for (archive, kind) in cases {
        let fixture = Fixture::new().await;
        let error = fixture.import(archive).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        fixture.assert_empty().await;
    }
}
