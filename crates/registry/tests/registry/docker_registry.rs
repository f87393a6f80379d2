//! The client against Debian's `docker-registry`.

use crate::support::docker::{DockerRegistry, Options, USER, run};
use crate::support::{bytes, client, patience, read, repository};
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
    resolved_as(&registry.domain, trusted).await
}

async fn resolved_as(domain: &str, trusted: &DockerRegistry) -> Result<(), Error> {
    let config = HostConfig { ca: vec![trusted.certificate()], ..HostConfig::default() };
    let reference: Reference = format!("{domain}/a:v1").parse().unwrap();
    let repository = client(domain, config).repository(&reference, Credentials::Anonymous);
    repository.resolve(&reference).await.map(drop)
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_trusted_when_it_is_listed() {
    let registry = self_signed("-days 2");
    registry.put_image("a", "v1", b"layer").await;
    resolved(&registry, &registry).await.unwrap();

    let other = self_signed("-days 2");
    let error = resolved(&registry, &other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");

    // By a name that the certificate does not have.
    let misnamed = registry.domain.replace("127.0.0.1", "localhost");
    let error = resolved_as(&misnamed, &registry).await.unwrap_err();
    assert!(error.message().contains("another name"), "{error}");

    let expired = self_signed("-startdate 20200101000000Z -enddate 20200102000000Z");
    let error = resolved(&expired, &expired).await.unwrap_err();
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

/// A directory whose `hosts.toml` for `domain` is `text`.
fn hosts(domain: &str, text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join(domain)).unwrap();
    std::fs::write(directory.path().join(domain).join("hosts.toml"), text).unwrap();
    directory
}

fn with_directory(directory: &tempfile::TempDir) -> Client {
    let directories = vec![directory.path().to_owned()];
    Client::new(Config { directories, patience: patience(), ..Config::default() })
}

#[tokio::test]
async fn mirrors_are_asked_first_and_the_registry_last() {
    let (registry, mirror) =
        (DockerRegistry::start(Options::default()), DockerRegistry::start(Options::default()));
    let (old, _) = registry.put_image("a", "v1", b"old").await;
    let (new, layer) = mirror.put_image("a", "v1", b"new").await;
    let (only, only_layer) = registry.put_image("only", "v1", b"at the registry").await;
    let text = format!("[host.\"http://{}\"]\n", mirror.domain);
    let directory = hosts(&registry.domain, &text);
    let client = with_directory(&directory);
    let reference =
        |text: &str| -> Reference { format!("{}/{text}", registry.domain).parse().unwrap() };

    let (a, missing) = (reference("a:v1"), reference("only:v1"));
    let repository = client.repository(&a, Credentials::Anonymous);
    assert_eq!(repository.resolve(&a).await.unwrap(), new);
    assert!(!repository.manifest(&new).await.unwrap().is_empty());
    assert_eq!(read(repository.blob(&layer, 0)).await.unwrap(), b"new");
    assert_eq!(read(repository.blob(&layer, 1)).await.unwrap(), b"ew");
    let second = client.repository(&missing, Credentials::Anonymous);
    assert_eq!(second.resolve(&missing).await.unwrap(), only);
    assert_eq!(read(second.blob(&only_layer, 0)).await.unwrap(), b"at the registry");

    // A mirror that may not resolve is asked for content alone.
    let text = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n", mirror.domain);
    std::fs::write(directory.path().join(&registry.domain).join("hosts.toml"), text).unwrap();
    let repository = client.repository(&a, Credentials::Anonymous);
    assert_eq!(repository.resolve(&a).await.unwrap(), old);
    assert_eq!(read(repository.blob(&layer, 0)).await.unwrap(), b"new");

    drop(mirror);
    let repository = client.repository(&a, Credentials::Anonymous);
    assert!(!repository.manifest(&old).await.unwrap().is_empty());
    std::fs::write(directory.path().join(&registry.domain).join("hosts.toml"), "host = 1").unwrap();
    let broken = client.repository(&a, Credentials::Anonymous).resolve(&a).await.unwrap_err();
    assert!(broken.message().contains("hosts.toml"), "{broken}");
}

#[tokio::test]
async fn a_registry_that_asks_for_a_certificate_gets_the_configured_one() {
    let asking = Options { tls: true, asks_for_certificates: true, ..Options::default() };
    let registry = DockerRegistry::start(asking);
    let reference: Reference = format!("{}/a:v1", registry.domain).parse().unwrap();
    let files =
        [registry.ca(), registry.certificate(), registry.certificate().with_extension("key")];
    let [ca, certificate, key] = files.map(|file| file.display().to_string());
    let server = format!("server = \"https://{}\"\nca = \"{ca}\"\n", registry.domain);
    let showing = format!("{server}client = [[\"{certificate}\", \"{key}\"]]\n");
    // Of several, the one of an authority that the registry knows is shown.
    let strangers = tempfile::tempdir().unwrap();
    let command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout \
                   key -out crt -subj /CN=stranger";
    run(strangers.path(), "openssl", &command.split_whitespace().collect::<Vec<_>>());
    let strangers = strangers.path().display();
    let choosing = format!(
        "{server}client = [[\"{strangers}/crt\", \"{strangers}/key\"], \
         [\"{certificate}\", \"{key}\"]]\n"
    );
    let mut seen = Vec::new();
    for text in [server, showing, choosing] {
        let directory = hosts(&registry.domain, &text);
        let repository = with_directory(&directory).repository(&reference, Credentials::Anonymous);
        seen.push(repository.resolve(&reference).await.unwrap_err());
    }
    assert_ne!(seen[0].kind(), Kind::NotFound, "{}", seen[0]);
    assert_eq!(seen[1].kind(), Kind::NotFound, "{}", seen[1]);
    assert_eq!(seen[2].kind(), Kind::NotFound, "{}", seen[2]);
}

#[tokio::test]
async fn logins_of_docker_are_used_where_nothing_else_is_said() {
    let registry = DockerRegistry::start(Options { authentication: true, ..Options::default() });
    let (manifest, _) = registry.put_image("a", "v1", b"layer").await;
    let reference: Reference = format!("{}/a:v1", registry.domain).parse().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let client = Client::new(Config {
        docker: Some(file.path().to_owned()),
        patience: patience(),
        ..Config::default()
    });
    let login = |password: &str| {
        let login = serde_json::json!({ "username": USER.0, "password": password });
        let config = serde_json::json!({ "auths": { (registry.domain.clone()): login } });
        std::fs::write(file.path(), config.to_string()).unwrap();
        client.repository(&reference, Credentials::Anonymous)
    };
    assert_eq!(login(USER.1).resolve(&reference).await.unwrap(), manifest);
    let refused = login("wrong").resolve(&reference).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unauthenticated, "{refused}");
}
