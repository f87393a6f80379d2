//! Interrupted pulls: what was fetched is not fetched again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_metadata::WriterRequest;
use berth_types::labels::GC_EXPIRE;
use berth_types::{Digest, Kind};

use crate::fixture::{Fixture, NAMESPACE};
use crate::hostile::{Reply, Server, Then};
use crate::image::layered;
use crate::served::{answer, parts};

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
    // What was fetched outlives a collection, for the next try, but not for long.
    fixture.metadata.collect().await.unwrap();
    let leases = fixture.scope(NAMESPACE).leases().list(&[]).unwrap();
    let until = leases[0].labels[GC_EXPIRE].parse::<jiff::Timestamp>().unwrap();
    let left = until.duration_since(jiff::Timestamp::now());
    assert!(left.is_positive() && left.as_hours() == 0, "{left:?}");
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

/// A power cut may leave anything of what was not synced.
#[tokio::test]
async fn what_is_damaged_of_an_earlier_try_is_fetched_anew() {
    let image = layered();
    let all = parts(&image);
    let server = Server::start(move |request, _| answer(&all, request)).await;
    let fixture = Fixture::new().await;
    let described = |layer: usize| image.layers[layer].descriptor();
    let config = (Digest::of(&image.config), image.config.len());
    let whole = |layer| (described(layer).digest, described(layer).size as usize);
    let half = |layer| (described(layer).digest, described(layer).size as usize / 2);
    for (digest, length) in [config, whole(0), half(1), half(3)] {
        let request = WriterRequest {
            reference: format!("pull-{digest}"),
            total: 0,
            expected: Some(digest.clone()),
        };
        let mut writer = fixture.scope(NAMESPACE).content().writer(request).await.unwrap();
        writer.write(&vec![0; length]).unwrap();
    }
    let reference = format!("{}/a:v1", server.domain);
    fixture.pull(&reference).await.unwrap();
    for layer in &image.layers {
        fixture.content.verify(&layer.descriptor().digest).unwrap();
    }
    assert_eq!(fixture.snapshots().await.len(), image.layers.len());
    assert_eq!(fixture.content.statuses(|_| true).unwrap(), []);
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
