//! Interrupted pulls: what was fetched is not fetched again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_types::image::media_type;
use berth_types::{Digest, Kind};

use crate::fixture::{Fixture, NAMESPACE};
use crate::hostile::{Reply, Request, Server, Then};
use crate::image::{TestImage, layered};

/// The parts of an image by the ends of their paths.
fn parts(image: &TestImage) -> HashMap<String, Vec<u8>> {
    let blobs = image.layers.iter().map(|layer| layer.blob.clone()).chain([image.config.clone()]);
    let blobs = blobs.map(|blob| (format!("blobs/{}", Digest::of(&blob)), blob));
    let manifest = format!("manifests/{}", image.descriptor().digest);
    let named = [manifest, "manifests/v1".to_owned()].map(|name| (name, image.manifest.clone()));
    blobs.chain(named).collect()
}

fn answer(parts: &HashMap<String, Vec<u8>>, request: &Request) -> Reply {
    let rest = request.path.strip_prefix("/v2/a/").unwrap_or_default();
    let Some(bytes) = parts.get(rest) else { return Reply::new(404, &[], b"") };
    let kind = ("content-type", media_type::OCI_MANIFEST);
    match request.range_start() {
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, &[kind, ("content-range", &range)], &bytes[start..])
        }
        None => {
            let digest = Digest::of(bytes).to_string();
            let length = bytes.len().to_string();
            let headers = [kind, ("docker-content-digest", &digest), ("content-length", &length)];
            Reply::new(200, &headers, if request.method == "HEAD" { b"" } else { bytes })
        }
    }
}

#[tokio::test]
async fn a_second_pull_fetches_only_what_is_missing() {
    let image = layered();
    let down = Arc::new(AtomicBool::new(true));
    let (all, is_down) = (parts(&image), down.clone());
    let large = format!("blobs/{}", image.layers[3].descriptor().digest);
    let broken = large.clone();
    let server = Server::start(move |request, _| {
        let mut reply = answer(&all, request);
        if is_down.load(Ordering::SeqCst) && request.path.ends_with(&broken) {
            match request.range_start() {
                None => reply.bytes.truncate(reply.bytes.len() / 2),
                Some(_) => reply = Reply::new(503, &[], b""),
            }
            reply.then = Then::Close;
        }
        reply
    })
    .await;
    let reference = format!("{}/a:v1", server.domain);
    let fixture = Fixture::new().await;
    let error = fixture.pull(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    // What was fetched outlives a collection, for the next try.
    fixture.metadata.collect().await.unwrap();
    assert_eq!(fixture.snapshots().await, []);

    let asked_before = server.requests().len();
    down.store(false, Ordering::SeqCst);
    fixture.pull(&reference).await.unwrap();
    let requests = server.requests().split_off(asked_before);
    let fetched = |path: &str| {
        let asked = requests.iter().filter(|r| r.method == "GET" && r.path.ends_with(path));
        asked.map(|r| r.range_start()).collect::<Vec<_>>()
    };
    let resumed = fetched(&large);
    assert!(matches!(resumed.as_slice(), [Some(start)] if *start > 100_000), "{resumed:?}");
    assert_eq!(fetched(&format!("manifests/{}", image.descriptor().digest)), []);
    assert_eq!(fetched(&format!("blobs/{}", Digest::of(&image.config))), []);

    let scope = fixture.scope(NAMESPACE);
    assert_eq!(scope.leases().list(&[]).unwrap(), []);
    assert_eq!(fixture.snapshots().await.len(), 4);
    assert_eq!(fixture.metadata.collect().await.unwrap(), Default::default());
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_stop_the_pull() {
    let image = layered();
    let all = parts(&image);
    let server = Server::start(move |request, _| answer(&all, request)).await;
    let fixture = Fixture::new().await;
    let reference = format!("{}/a:v1", server.domain);
    {
        let mut pull = Box::pin(fixture.pull(&reference));
        let polled_once = futures_util::poll!(pull.as_mut());
        assert!(polled_once.is_pending());
    }
    // It can be waited for only by joining in.
    fixture.pull(&reference).await.unwrap();
    for layer in &image.layers {
        let path = format!("blobs/{}", layer.descriptor().digest);
        let fetched = server.requests().iter().filter(|r| r.path.ends_with(&path)).count();
        assert_eq!(fetched, 1, "{path}");
    }
}
