//! Manifests, authentication and redirects from servers that mean no good.

use crate::support::hostile::{Reply, Server, Then};
use crate::support::{client, read, repository};
use berth_registry::{Credentials, HostConfig};
use berth_types::image::{Descriptor, media_type};
use berth_types::{Digest, Kind, Reference};

const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;

fn manifest() -> Descriptor {
    Descriptor::new(media_type::OCI_MANIFEST, Digest::of(MANIFEST), MANIFEST.len() as u64)
}

fn manifest_reply() -> Reply {
    Reply::new(200, &[("content-type", media_type::OCI_MANIFEST)], MANIFEST)
}

fn user() -> Credentials {
    Credentials::Password { username: "u".to_owned(), password: "p".to_owned() }
}

fn plain() -> HostConfig {
    HostConfig { plain_http: true, ..HostConfig::default() }
}

#[tokio::test]
async fn falls_back_to_get_where_head_tells_nothing() {
    for head_status in [200, 400, 405, 501] {
        let server = Server::start(move |request, _| match request.method.as_str() {
            "HEAD" => Reply::new(head_status, &[], b""),
            _ => manifest_reply(),
        })
        .await;
        let (reference, repository) = repository(&server.domain, "a");
        assert_eq!(repository.resolve(&reference).await.unwrap(), manifest(), "{head_status}");
    }
}

#[tokio::test]
async fn a_manifest_of_another_digest_or_size_is_refused() {
    let server = Server::start(|_, _| manifest_reply()).await;
    let (reference, repository) = repository(&server.domain, "a");
    let mut other = manifest();
    other.digest = Digest::of(b"other");
    let error = repository.manifest(&other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    let pinned = reference.with_digest(other.digest);
    let error = repository.resolve(&pinned).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    let mut longer = manifest();
    longer.size += 1;
    assert!(repository.manifest(&longer).await.is_err());
}

#[tokio::test]
async fn a_manifest_without_end_is_refused() {
    let server = Server::start(|_, _| {
        Reply::raw(200, &[("content-type", media_type::OCI_MANIFEST)], &vec![b' '; 6 << 20])
    })
    .await;
    let (reference, repository) = repository(&server.domain, "a");
    let error = repository.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    let mut huge = manifest();
    huge.size = 50 << 20;
    let error = repository.manifest(&huge).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn passing_failures_are_tried_again_and_lasting_ones_end() {
    let server = Server::start(|_, count| match count {
        0 => Reply::new(429, &[("retry-after", "0")], b""),
        1 => Reply::new(503, &[], b"").then(Then::Reset),
        _ => manifest_reply(),
    })
    .await;
    let (_, repository1) = repository(&server.domain, "a");
    assert_eq!(repository1.manifest(&manifest()).await.unwrap(), MANIFEST);
    assert_eq!(server.requests().len(), 3);

    for status in [500, 502, 503, 504] {
        let busy = Server::start(move |_, _| Reply::new(status, &[], b"")).await;
        let (reference, repository2) = repository(&busy.domain, "a");
        let error = repository2.resolve(&reference).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        assert_eq!(busy.requests().len(), 3, "{status}");
    }

    let asks_for_ages =
        Server::start(|_, _| Reply::new(429, &[("retry-after", "86400")], b"")).await;
    let (reference, repository3) = repository(&asks_for_ages.domain, "a");
    let error = repository3.resolve(&reference).await.unwrap_err();
    assert!(error.message().contains("86400 s"), "{error}");
    assert_eq!(asks_for_ages.requests().len(), 1);
}

#[tokio::test]
async fn tokens_are_fetched_once_for_a_scope() {
    let tokens = Server::start(|_, count| {
        let token = format!(r#"{{"token":"t{count}","expires_in":300}}"#);
        Reply::new(200, &[], token.as_bytes())
    })
    .await;
    let realm = format!(r#"Bearer realm="http://{}/token",service="s""#, tokens.domain);
    let server = Server::start(move |request, _| match request.header("authorization") {
        Some("Bearer t0") => manifest_reply(),
        _ => Reply::new(401, &[("www-authenticate", &realm)], b""),
    })
    .await;
    let client = client(&server.domain, plain());
    let reference: Reference = format!("{}/a/b", server.domain).parse().unwrap();
    for _ in 0..2 {
        let repository = client.repository(&reference, user());
        for _ in 0..3 {
            repository.manifest(&manifest()).await.unwrap();
        }
    }
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].path.contains("scope=repository%3Aa%2Fb%3Apull"), "{}", asked[0].path);
    assert_eq!(asked[0].header("authorization"), Some("Basic dTpw"));
}

#[tokio::test]
async fn a_token_that_has_ended_is_replaced() {
    let tokens = Server::start(|_, count| {
        Reply::new(200, &[], format!(r#"{{"access_token":"t{count}"}}"#).as_bytes())
    })
    .await;
    let realm = format!(r#"Bearer realm="http://{}/""#, tokens.domain);
    let server = Server::start(move |request, count| {
        let good = if count < 2 { "Bearer t0" } else { "Bearer t1" };
        match request.header("authorization") {
            Some(header) if header == good => manifest_reply(),
            _ => Reply::new(401, &[("www-authenticate", &realm)], b""),
        }
    })
    .await;
    let (_, repository) = repository(&server.domain, "a");
    repository.manifest(&manifest()).await.unwrap();
    repository.manifest(&manifest()).await.unwrap();
    assert_eq!(tokens.requests().len(), 2);
}

#[tokio::test]
async fn endless_401_ends() {
    let tokens = Server::start(|_, _| Reply::new(200, &[], br#"{"token":"t"}"#)).await;
    let realm = format!(r#"Bearer realm="http://{}/""#, tokens.domain);
    let server =
        Server::start(move |_, _| Reply::new(401, &[("www-authenticate", &realm)], b"")).await;
    let (reference, repository) = repository(&server.domain, "a");
    let error = repository.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated, "{error}");
    assert_eq!((server.requests().len(), tokens.requests().len()), (2, 1));

    let refusing = Server::start(|_, _| Reply::new(403, &[], b"")).await;
    let error =
        crate::support::repository(&refusing.domain, "a").1.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied, "{error}");
}

#[tokio::test]
async fn credentials_stay_with_the_registry_on_redirects() {
    let other = Server::start(|_, _| Reply::new(200, &[], b"layer")).await;
    let location = format!("http://{}/blob", other.domain);
    let server = Server::start(move |request, _| match request.header("authorization") {
        None => Reply::new(401, &[("www-authenticate", "Basic realm=x")], b""),
        Some(_) => Reply::new(307, &[("location", &location)], b""),
    })
    .await;
    let reference: Reference = format!("{}/a", server.domain).parse().unwrap();
    let repository = client(&server.domain, plain()).repository(&reference, user());
    let layer = Descriptor::new(media_type::OCI_LAYER, Digest::of(b"layer"), 5);
    assert_eq!(read(repository.blob(&layer, 0)).await.unwrap(), b"layer");
    assert_eq!(server.requests()[1].header("authorization"), Some("Basic dTpw"));
    assert_eq!(other.requests().len(), 1);
    assert_eq!(other.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn another_host_that_asks_for_credentials_gets_none() {
    let greedy =
        Server::start(|_, _| Reply::new(401, &[("www-authenticate", "Basic realm=x")], b"")).await;
    let location = format!("http://{}/blob", greedy.domain);
    let server = Server::start(move |_, _| Reply::new(302, &[("location", &location)], b"")).await;
    let reference: Reference = format!("{}/a", server.domain).parse().unwrap();
    let repository = client(&server.domain, plain()).repository(&reference, user());
    let error = repository.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated, "{error}");
    assert!(greedy.requests().iter().all(|r| r.header("authorization").is_none()));
}

#[tokio::test]
async fn a_password_is_not_sent_in_clear_to_a_far_token_server() {
    let realm = r#"Bearer realm="http://tokens.invalid/""#;
    let server =
        Server::start(move |_, _| Reply::new(401, &[("www-authenticate", realm)], b"")).await;
    let reference: Reference = format!("{}/a", server.domain).parse().unwrap();
    let repository = client(&server.domain, plain()).repository(&reference, user());
    let error = repository.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied, "{error}");
}

#[tokio::test]
async fn redirects_in_a_circle_or_to_nonsense_end() {
    let circle = Server::start(|_, _| Reply::new(307, &[("location", "/again")], b"")).await;
    let (reference, repository1) = repository(&circle.domain, "a");
    let error = repository1.resolve(&reference).await.unwrap_err();
    assert!(error.message().contains("more than 10 times"), "{error}");
    for location in ["ftp://x/", "file:///etc/passwd", "http://"] {
        let server =
            Server::start(move |_, _| Reply::new(302, &[("location", location)], b"")).await;
        let (reference, repository) = repository(&server.domain, "a");
        let error = repository.resolve(&reference).await.unwrap_err();
        assert!(error.message().contains("refused"), "{location}: {error}");
        assert_eq!(server.requests().len(), 1);
    }
}
