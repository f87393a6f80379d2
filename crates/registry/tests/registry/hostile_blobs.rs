//! Blobs from servers that truncate, stall, lie and ignore what they are asked.

use std::time::Duration;

use crate::support::hostile::{Reply, Request, Server, Then};
use crate::support::{bytes, patience, read, repository};
use berth_registry::{Client, Config, Credentials, HostConfig, Patience};
use berth_types::image::{Descriptor, media_type};
use berth_types::{Digest, Kind, Reference};

fn layer(content: &[u8]) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, Digest::of(content), content.len() as u64)
}

/// The blob as a well-behaved server sends it.
fn honest(request: &Request, content: &[u8]) -> Reply {
    let total = content.len();
    match request.range_start() {
        Some(start) => {
            let range = format!("bytes {start}-{}/{total}", total - 1);
            Reply::new(206, &[("content-range", &range)], &content[start..])
        }
        None => Reply::new(200, &[], content),
    }
}

#[tokio::test]
async fn resumes_where_the_connection_broke() {
    let content = bytes(200_000);
    let mut cuts: Vec<usize> = (1..19).map(|i| i * content.len() / 19).collect();
    cuts.extend([0, content.len() - 1]);
    for (n, cut) in cuts.into_iter().enumerate() {
        let body = content.clone();
        let server = Server::start(move |request, count| {
            let mut reply = honest(request, &body);
            if count == 0 {
                reply.bytes.truncate(reply.bytes.len() - (body.len() - cut));
                reply.then = if n % 2 == 0 { Then::Close } else { Then::Reset };
            }
            reply
        })
        .await;
        let (_, repository) = repository(&server.domain, "a");
        let got = read(repository.blob(&layer(&content), 0)).await.unwrap();
        assert!(got == content, "cut at {cut}");
        let requests = server.requests();
        assert_eq!(requests.len(), 2);
        // A reset may discard what was on its way, but nothing is asked for twice.
        assert!(requests[1].range_start().unwrap_or(0) <= cut);
    }
}

#[tokio::test]
async fn reads_again_where_range_is_ignored() {
    let content = bytes(100_000);
    let body = content.clone();
    let server = Server::start(move |_, count| {
        let mut reply = Reply::new(200, &[], &body);
        if count == 0 {
            reply.bytes.truncate(60_000);
        }
        reply
    })
    .await;
    let (_, repository) = repository(&server.domain, "a");
    assert!(read(repository.blob(&layer(&content), 0)).await.unwrap() == content);
    assert!(server.requests()[1].range_start().is_some());
    let tail = read(repository.blob(&layer(&content), 99_000)).await.unwrap();
    assert!(tail == content[99_000..]);
}

#[tokio::test]
async fn a_transfer_that_keeps_breaking_ends() {
    let content = bytes(100_000);
    let body = content.clone();
    let server = Server::start(move |request, _| {
        let mut reply = honest(request, &body);
        reply.bytes.truncate(reply.bytes.len().min(400));
        reply
    })
    .await;
    let (_, repository) = repository(&server.domain, "a");
    let error = read(repository.blob(&layer(&content), 0)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.message().contains("given up after 3 tries"), "{error}");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_wrong_size_is_refused() {
    let content = bytes(1000);
    for announced in [999, 1001] {
        let (body, domain_size) = (content.clone(), announced);
        let server = Server::start(move |request, _| honest(request, &body)).await;
        let (_, repository) = repository(&server.domain, "a");
        let mut descriptor = layer(&content);
        descriptor.size = domain_size;
        let error = read(repository.blob(&descriptor, 0)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
        assert_eq!(server.requests().len(), 1);
    }
    // Without a length, what is too much is only seen as it comes.
    let server = Server::start(move |_, _| Reply::raw(200, &[], &content)).await;
    let (_, repository) = repository(&server.domain, "a");
    let mut descriptor = layer(b"");
    descriptor.size = 10;
    let error = read(repository.blob(&descriptor, 0)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
}

#[tokio::test]
async fn wrong_lengths_and_ranges_never_yield_wrong_bytes() {
    let content = bytes(50_000);
    type Lie = fn(&[u8]) -> Reply;
    let lies: [Lie; 5] = [
        |body| Reply::new(200, &[("content-length", "-1")], body),
        |body| Reply::new(200, &[("content-length", "50000, 49999")], body),
        |body| Reply::new(206, &[("content-range", "bytes 100-49999/50000")], &body[100..]),
        |body| Reply::new(206, &[("content-range", "lines 1-2")], body),
        |body| Reply::raw(200, &[("transfer-encoding", "chunked")], &body[..10]),
    ];
    for lie in lies {
        let body = content.clone();
        let server = Server::start(move |_, _| lie(&body)).await;
        let (_, repository) = repository(&server.domain, "a");
        assert!(read(repository.blob(&layer(&content), 0)).await.is_err());
    }
}

#[tokio::test]
async fn peers_that_send_next_to_nothing_are_given_up() {
    let content = bytes(100_000);
    // Who never answers is not asked again.
    for (cut, then, asked) in [(0, Then::Stall, 1), (20, Then::Trickle, 1), (500, Then::Trickle, 3)]
    {
        let body = content.clone();
        let server = Server::start(move |request, _| {
            let mut reply = honest(request, &body).then(then);
            reply.bytes.truncate(cut);
            reply
        })
        .await;
        let progress = Duration::from_millis(200);
        let short = Patience { progress, connect: progress, ..patience() };
        let plain = HostConfig { plain_http: true, ..HostConfig::default() };
        let hosts = [(server.domain.clone(), plain)].into();
        let client = Client::new(Config { hosts, patience: short, ..Config::default() });
        let reference: Reference = format!("{}/a", server.domain).parse().unwrap();
        let repository = client.repository(&reference, Credentials::Anonymous);
        let error = read(repository.blob(&layer(&content), 0)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        assert!(error.message().contains(&server.domain), "{error}");
        assert_eq!(server.requests().len(), asked);
    }
}

/// Peers that take a connection and never get through with TLS.
#[tokio::test]
async fn peers_that_stall_in_tls_are_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let domain = listener.local_addr().unwrap().to_string();
    let peers = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    let progress = Duration::from_millis(200);
    let short = Patience { progress, connect: progress, ..patience() };
    let client = Client::new(Config { patience: short, ..Config::default() });
    let reference: Reference = format!("{domain}/a").parse().unwrap();
    let repository = client.repository(&reference, Credentials::Anonymous);
    let error = repository.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.message().contains(&domain), "{error}");
    peers.abort();
}
