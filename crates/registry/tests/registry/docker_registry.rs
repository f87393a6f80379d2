//! The client against Debian's `docker-registry`.

use crate::support::docker::{DockerRegistry, Options, USER};
use crate::support::{bytes, client, read, repository};
use berth_registry::{Client, Config, Credentials, HostConfig};
use berth_types::image::{Descriptor, Document, media_type};
use berth_types::{Digest, Error, Kind, Reference};

fn user() -> Credentials {
    Credentials::Password { username: USER.0.to_owned(), password: USER.1.to_owned() }
}

#[tokio::test]
async fn resolves_and_reads_over_plain_http_on_loopback() {
    let registry = DockerRegistry::start(Options::default());
    let content = bytes(3 << 20);
    let (manifest, layer) = registry.put_image("some/image", "v1", &content).await;
    // No configuration: HTTPS is tried, then plain HTTP, as for any loopback address.
    let client = Client::new(Config::default());
    let reference: Reference = format!("{}/some/image:v1", registry.domain).parse().unwrap();
    let repository = client.repository(&reference, Credentials::Anonymous);

    assert_eq!(repository.resolve(&reference).await.unwrap(), manifest);
    let pinned = reference.clone().with_digest(manifest.digest.clone());
    assert_eq!(repository.resolve(&pinned).await.unwrap(), manifest);
    let document = repository.manifest(&manifest).await.unwrap();
    let document = Document::parse(&manifest.media_type, &document).unwrap();
    assert!(matches!(document, Document::Manifest(m) if m.layers == [layer.clone()]));
    assert!(read(repository.blob(&layer, 0)).await.unwrap() == content);
    assert!(read(repository.blob(&layer, 1 << 20)).await.unwrap() == content[1 << 20..]);
    assert_eq!(read(repository.blob(&layer, layer.size)).await.unwrap(), b"");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let registry = DockerRegistry::start(Options::default());
    registry.put_image("a", "v1", b"layer").await;
    let (reference, repository) = repository(&registry.domain, "a:v2");
    let error = repository.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let pinned = reference.with_digest(Digest::of(b"nothing"));
    assert_eq!(repository.resolve(&pinned).await.unwrap_err().kind(), Kind::NotFound);
    let missing = Descriptor::new(media_type::OCI_LAYER, Digest::of(b"nothing"), 7);
    assert_eq!(read(repository.blob(&missing, 0)).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_private_authority_must_be_configured() {
    let registry =
        DockerRegistry::start(Options { tls: true, authentication: false, ..Options::default() });
    let (manifest, _) = registry.put_image("a", "v1", b"layer").await;
    let reference: Reference = format!("{}/a:v1", registry.domain).parse().unwrap();
    let trusting = HostConfig { ca: vec![registry.ca()], ..HostConfig::default() };
    let known = client(&registry.domain, trusting).repository(&reference, Credentials::Anonymous);
    assert_eq!(known.resolve(&reference).await.unwrap(), manifest);

    // Another authority's certificate: the registry's is then unknown.
    let other =
        DockerRegistry::start(Options { tls: true, authentication: false, ..Options::default() });
    let wrong = HostConfig { ca: vec![other.ca()], ..HostConfig::default() };
    let wrong = client(&registry.domain, wrong).repository(&reference, Credentials::Anonymous);
    let error = wrong.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    assert!(error.message().contains("trusted authority"), "{error}");

    // On loopback, without a word about authorities, any certificate will do.
    let loopback = Client::new(Config::default());
    let loopback = loopback.repository(&reference, Credentials::Anonymous);
    assert_eq!(loopback.resolve(&reference).await.unwrap(), manifest);

    let missing = HostConfig { ca: vec!["/nonexistent/ca.crt".into()], ..HostConfig::default() };
    let missing = client(&registry.domain, missing).repository(&reference, Credentials::Anonymous);
    let error = missing.resolve(&reference).await.unwrap_err();
    assert!(error.message().contains("/nonexistent/ca.crt"), "{error}");
}

fn self_signed(arguments: &'static str) -> DockerRegistry {
    DockerRegistry::start(Options { tls: true, self_signed: Some(arguments), ..Options::default() })
}

/// What a client that trusts the certificate of `trusted` finds at `registry`.
async fn resolved(registry: &DockerRegistry, trusted: &DockerRegistry) -> Result<(), Error> {
    let config = HostConfig { ca: vec![trusted.certificate()], ..HostConfig::default() };
    let reference: Reference = format!("{}/a:v1", registry.domain).parse().unwrap();
    let repository =
        client(&registry.domain, config).repository(&reference, Credentials::Anonymous);
    repository.resolve(&reference).await.map(drop)
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_trusted_when_it_is_listed() {
    let registry = self_signed("-days 2 -addext subjectAltName=IP:127.0.0.1");
    registry.put_image("a", "v1", b"layer").await;
    resolved(&registry, &registry).await.unwrap();

    let other = self_signed("-days 2 -addext subjectAltName=IP:127.0.0.1");
    let error = resolved(&registry, &other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");

    let misnamed = self_signed("-days 2 -addext subjectAltName=IP:127.0.0.2");
    let error = resolved(&misnamed, &misnamed).await.unwrap_err();
    assert!(error.message().contains("another name"), "{error}");

    // It is good until the second in which it was made is over.
    let expired = self_signed("-days 0 -addext subjectAltName=IP:127.0.0.1");
    expired.put_image("a", "v1", b"layer").await;
    let error = loop {
        match resolved(&expired, &expired).await {
            Ok(()) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Err(error) => break error,
        }
    };
    assert!(error.message().contains("expired"), "{error}");
}

#[tokio::test]
async fn basic_authentication() {
    let registry =
        DockerRegistry::start(Options { tls: true, authentication: true, ..Options::default() });
    let (manifest, layer) = registry.put_image("a", "v1", b"layer").await;
    let reference: Reference = format!("{}/a:v1", registry.domain).parse().unwrap();
    let host = HostConfig { ca: vec![registry.ca()], ..HostConfig::default() };
    let client = client(&registry.domain, host);

    let known = client.repository(&reference, user());
    assert_eq!(known.resolve(&reference).await.unwrap(), manifest);
    assert_eq!(read(known.blob(&layer, 2)).await.unwrap(), b"yer");

    let anonymous = client.repository(&reference, Credentials::Anonymous);
    let error = anonymous.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated, "{error}");
    let (username, password) = (USER.0.to_owned(), "wrong".to_owned());
    let wrong = client.repository(&reference, Credentials::Password { username, password });
    let error = wrong.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated, "{error}");
}

#[tokio::test]
async fn configured_credentials_stand_in_for_none() {
    let registry =
        DockerRegistry::start(Options { tls: false, authentication: true, ..Options::default() });
    let (manifest, _) = registry.put_image("a", "v1", b"layer").await;
    let reference: Reference = format!("{}/a:v1", registry.domain).parse().unwrap();
    let host = HostConfig { plain_http: true, credentials: user(), ..HostConfig::default() };
    let repository = client(&registry.domain, host).repository(&reference, Credentials::Anonymous);
    assert_eq!(repository.resolve(&reference).await.unwrap(), manifest);
}

#[tokio::test]
async fn a_registry_that_is_down_is_unavailable() {
    let domain = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let (reference, repository) = repository(&domain, "a");
    let error = repository.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("can't be reached"), "{error}");
}
