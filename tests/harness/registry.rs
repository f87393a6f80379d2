//! Debian's docker-registry on a loopback port.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use berth_types::Digest;
use reqwest::{Client, RequestBuilder, Response};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::{Finished, Running, wait_until};
use crate::tokens::Tokens;
use crate::{Image, process};

/// User and password of a registry that asks for them.
pub const USER: (&str, &str) = ("someone", "secret");

/// Who may use a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone.
    Anyone,
    /// Who gives the password of [`USER`] with each request.
    Password,
    /// Who gives it to a token server.
    Token,
}

/// A registry on scratch storage.
pub struct Registry {
    port: u16,
    scheme: &'static str,
    access: Access,
    tokens: Option<Tokens>,
    directory: TempDir,
    daemon: Option<Running>,
    client: Client,
    runtime: Runtime,
}

impl Registry {
    /// Plain HTTP and open to all.
    pub fn start() -> Self {
        Self::with(false, Access::Anyone)
    }

    /// Perhaps with a certificate of a private authority (see [`Registry::authority`]), for those
    /// who have `access`.
    pub fn with(tls: bool, access: Access) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            rustls::crypto::ring::default_provider().install_default().expect("the first provider");
        });
        let directory = tempfile::tempdir().expect("a directory");
        if tls || access == Access::Token {
            make_certificates(&directory);
        }
        let mut registry = Self {
            port: free_port(),
            scheme: if tls { "https" } else { "http" },
            access,
            tokens: (access == Access::Token).then(|| Tokens::start(directory.path())),
            client: client(tls.then_some(&directory)),
            directory,
            daemon: None,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
        };
        registry.start_daemon();
        registry
    }

    /// Ends the registry: connections to it are refused.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// `HOST:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate of the private authority, a PEM file.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// The full name of an image in this registry.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Copies what it has to `DIRECTORY/registry`, with the configuration of a registry that has it
    /// at `/registry` and listens as this one does.
    pub fn copy_to(&self, directory: &Path) {
        let (from, to) = (self.directory.path(), directory.join("registry"));
        fs::create_dir(&to).expect("make a directory");
        let data = from.join("data");
        Finished::run("cp", &[Path::new("-a"), &data, &to], b"").success();
        let config = fs::read_to_string(from.join("config.yml")).expect("read a configuration");
        let config = config.replace(from.to_str().expect("a path"), "/registry");
        fs::write(to.join("config.yml"), config).expect("write a configuration");
    }

    /// How often blobs were fetched whole or in part, by what the registry logged.
    pub fn blob_fetches(&self) -> usize {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let fetched = |line: &&str| line.contains("GET /v2/") && line.contains("/blobs/sha256:");
        log.lines().filter(fetched).count()
    }

    /// Changes a stored blob behind the registry's back, keeping its length.
    pub fn damage(&self, blob: &[u8]) {
        let path = self.stored(blob);
        let mut content = fs::read(&path).expect("read a stored blob");
        let middle = content.len() / 2;
        content[middle] ^= 0xff;
        fs::write(&path, content).expect("damage a stored blob");
    }

    /// Takes the second half of a stored blob away.
    pub fn truncate(&self, blob: &[u8]) {
        let file = fs::File::options().write(true).open(self.stored(blob));
        let file = file.expect("open a stored blob");
        file.set_len(blob.len() as u64 / 2).expect("shorten a stored blob");
    }

    /// Makes a blob that was damaged or truncated whole again.
    pub fn mend(&self, blob: &[u8]) {
        fs::write(self.stored(blob), blob).expect("mend a stored blob");
    }

    fn stored(&self, blob: &[u8]) -> PathBuf {
        let digest = Digest::of(blob);
        let hex = digest.hex();
        let below = format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        self.directory.path().join(below)
    }

    /// Uploads an image under its own name: `NAME[:TAG]` without a host.
    pub fn push(&self, image: &Image) {
        let (name, tag) = image.name().split_once(':').unwrap_or((image.name(), "latest"));
        for layer in image.layers() {
            self.push_blob(name, layer.blob());
        }
        self.push_blob(name, &image.config_document());
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        self.push_manifest(name, tag, media_type, image.manifest());
    }

    /// Uploads images, each for another architecture, as one under `name`.
    pub fn push_index(&self, name: &str, images: &[Image]) {
        let manifests: Vec<_> = images
            .iter()
            .map(|image| {
                self.push(image);
                image.entry()
            })
            .collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "manifests": manifests,
        });
        self.push_manifest(name, "latest", media_type, index.to_string().into_bytes());
    }

    /// Uploads a manifest or index as it is.
    pub fn push_manifest(&self, name: &str, tag: &str, media_type: &str, manifest: Vec<u8>) {
        let url = self.url(&format!("{name}/manifests/{tag}"));
        let request = self.client.put(url).header("Content-Type", media_type).body(manifest);
        self.send(name, request);
    }

    /// Uploads one blob in one piece.
    pub fn push_blob(&self, name: &str, blob: &[u8]) {
        let url = self.url(&format!("{name}/blobs/uploads/"));
        let started = self.send(name, self.client.post(url));
        let location = started.headers()["location"].to_str().expect("a location").to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", Digest::of(blob));
        self.send(name, self.client.put(url).body(blob.to_vec()));
    }

    fn url(&self, path: &str) -> String {
        format!("{}://{}/v2/{path}", self.scheme, self.host())
    }

    fn send(&self, name: &str, request: RequestBuilder) -> Response {
        let request = match (self.access, &self.tokens) {
            (Access::Password, _) => request.basic_auth(USER.0, Some(USER.1)),
            (_, Some(tokens)) => request.bearer_auth(tokens.for_pushing(name)),
            _ => request,
        };
        let response = self.runtime.block_on(request.send()).expect("ask the registry");
        assert!(response.status().is_success(), "{response:?}");
        response
    }

    fn start_daemon(&mut self) {
        let directory = self.directory.path();
        let mut config = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    \
             rootdirectory: {0}/data\nhttp:\n  addr: {1}\n  host: {2}://{1}\n",
            directory.display(),
            self.host(),
            self.scheme
        );
        if self.scheme == "https" {
            let path = directory.display();
            let _ = write!(
                config,
                "  tls:\n    certificate: {path}/server.crt\n    key: {path}/server.key\n"
            );
        }
        if let Some(tokens) = &self.tokens {
            config += &tokens.registry_configuration();
        }
        if self.access == Access::Password {
            let passwords = directory.join("htpasswd");
            let made = Finished::run("htpasswd", &["-Bbn", USER.0, USER.1], b"").success();
            fs::write(&passwords, made.stdout).expect("write passwords");
            let path = passwords.display();
            let _ = write!(config, "auth:\n  htpasswd:\n    realm: tests\n    path: {path}\n");
        }
        let file = directory.join("config.yml");
        fs::write(&file, config).expect("write the registry's configuration");
        let log = directory.join("log");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file);
        self.daemon = Some(process::Running::start(&mut command, &log));
        wait_until("the registry to listen", || std::net::TcpStream::connect(self.host()).is_ok());
    }
}

/// A port that nothing listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

fn client(tls: Option<&TempDir>) -> Client {
    let mut builder = Client::builder();
    if let Some(directory) = tls {
        let pem = fs::read(directory.path().join("ca.crt")).expect("read the authority");
        let authority = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        builder = builder.tls_certs_only([authority]);
    }
    builder.build().expect("an HTTP client")
}

/// A private authority, and a certificate of its for the loopback address.
fn make_certificates(directory: &TempDir) {
    let script = r#"
        set -e; cd "$1"
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tests -keyout ca.key -out ca.crt
        openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr
        printf 'subjectAltName=IP:127.0.0.1' >san
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile san -out server.crt
    "#;
    let path = directory.path().to_str().expect("a path");
    Finished::run("sh", &["-c", script, "sh", path], b"").success();
}
