//! Debian's `docker-registry` on a loopback port of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_types::Digest;
use berth_types::image::{Descriptor, media_type};
use reqwest::{Method, RequestBuilder};
use tempfile::TempDir;

/// A user that a registry with authentication knows, and the password.
pub(crate) const USER: (&str, &str) = ("tester", "s3cret:with:colons");

/// What a registry is started with.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    pub(crate) tls: bool,
    pub(crate) authentication: bool,
    /// Where given, the certificate is its own authority's, made with these arguments about dates.
    pub(crate) self_signed: Option<&'static str>,
    /// Who asks must have a certificate of the same authority.
    pub(crate) asks_for_certificates: bool,
}

/// A running registry. It ends with this value.
pub(crate) struct DockerRegistry {
    process: Child,
    directory: TempDir,
    options: Options,
    /// `127.0.0.1:PORT`.
    pub(crate) domain: String,
}

impl DockerRegistry {
    pub(crate) fn start(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.yml");
        fs::write(&config, configuration(directory.path(), options)).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(File::create(directory.path().join("access.log")).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed");
        let domain = listening_on(&mut process);
        Self { process, directory, options, domain }
    }

    /// The certificate of the authority that signed the registry's.
    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// The registry's own certificate.
    #[allow(dead_code, reason = "not every test that shares this speaks TLS")]
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("server.crt")
    }

    /// How often `GET` asked for paths with this end. The log may be a moment behind.
    #[allow(dead_code, reason = "not every test that shares this counts")]
    pub(crate) fn fetches(&self, end: &str) -> usize {
        let count = || {
            let log = fs::read_to_string(self.directory.path().join("access.log")).unwrap();
            log.lines()
                .filter(|l| l.contains("\"GET ") && l.contains(&format!("{end} HTTP")))
                .count()
        };
        for _ in 0..100 {
            if count() > 0 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        count()
    }

    /// The file in which a blob's bytes lie.
    #[allow(dead_code, reason = "not every test that shares this damages blobs")]
    pub(crate) fn stored(&self, digest: &Digest) -> PathBuf {
        let blobs = self.directory.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digest.hex()[..2]).join(digest.hex()).join("data")
    }

    /// Stores a blob and describes it.
    pub(crate) async fn put_blob(&self, path: &str, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        let begin = self.request(Method::POST, &format!("{path}/blobs/uploads/"));
        let begun = begin.send().await.unwrap();
        assert_eq!(begun.status(), 202);
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let put = self.authorized(self.http().put(format!("{location}&digest={digest}")));
        let done = put.body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(done.status(), 201);
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    /// Stores a manifest or index under `tag` and describes it.
    pub(crate) async fn put_manifest(
        &self,
        path: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Descriptor {
        let put = self.request(Method::PUT, &format!("{path}/manifests/{tag}"));
        let put = put.header("content-type", media_type).body(bytes.to_vec());
        let done = put.send().await.unwrap();
        assert_eq!(done.status(), 201, "{}", done.text().await.unwrap());
        Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Stores an image of one layer under `tag`; returns the manifest's descriptor and the layer's.
    pub(crate) async fn put_image(
        &self,
        path: &str,
        tag: &str,
        layer: &[u8],
    ) -> (Descriptor, Descriptor) {
        let config = self.put_blob(path, media_type::OCI_CONFIG, b"{}").await;
        let layer = self.put_blob(path, media_type::OCI_LAYER, layer).await;
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": config, "layers": [layer],
        });
        let bytes = serde_json::to_vec(&manifest).unwrap();
        (self.put_manifest(path, tag, media_type::OCI_MANIFEST, &bytes).await, layer)
    }

    fn http(&self) -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap()
    }

    fn request(&self, method: Method, rest: &str) -> RequestBuilder {
        let scheme = if self.options.tls { "https" } else { "http" };
        let url = format!("{scheme}://{}/v2/{rest}", self.domain);
        self.authorized(self.http().request(method, url))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match self.options.authentication {
            true => request.basic_auth(USER.0, Some(USER.1)),
            false => request,
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(directory: &Path, options: Options) -> String {
    let at = directory.display();
    let mut text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {at}/data\n\
         http:\n  addr: 127.0.0.1:0\n  secret: x\n"
    );
    if options.tls {
        match options.self_signed {
            Some(arguments) => make_self_signed(directory, arguments),
            None => make_certificates(directory),
        }
        text += &format!("  tls:\n    certificate: {at}/server.crt\n    key: {at}/server.key\n");
    }
    if options.asks_for_certificates {
        text += &format!("    clientcas:\n      - {at}/ca.crt\n");
    }
    if options.authentication {
        let line = run(directory, "htpasswd", &["-nbB", "-C4", USER.0, USER.1]);
        fs::write(directory.join("htpasswd"), line).unwrap();
        text += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {at}/htpasswd\n");
    }
    text
}

fn make_certificates(directory: &Path) {
    let ca = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout ca.key \
              -out ca.crt -subj /CN=test-authority";
    let request = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out \
                   server.csr -subj /CN=registry -addext subjectAltName=IP:127.0.0.1";
    let sign = "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
                -copy_extensions copy -out server.crt";
    for command in [ca, request, sign] {
        run(directory, "openssl", &command.split_whitespace().collect::<Vec<_>>());
    }
}

/// As a user makes one who follows the first hit of a search: an authority's.
fn make_self_signed(directory: &Path, dates: &str) {
    let config = "[ca]\ndefault_ca = own\n[own]\ndatabase = index\nrand_serial = yes\n\
                  new_certs_dir = .\ndefault_md = sha256\npolicy = any\n\
                  x509_extensions = authority\n[any]\ncommonName = supplied\n[authority]\n\
                  basicConstraints = critical, CA:TRUE\nsubjectAltName = IP:127.0.0.1\n";
    fs::write(directory.join("ca.cnf"), config).unwrap();
    fs::write(directory.join("index"), "").unwrap();
    let request = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key \
                   -out server.csr -subj /CN=registry";
    let sign = format!(
        "ca -batch -selfsign -notext -keyfile server.key -config ca.cnf -in server.csr \
         -out server.crt {dates}"
    );
    for command in [request, &sign] {
        run(directory, "openssl", &command.split_whitespace().collect::<Vec<_>>());
    }
}

pub(crate) fn run(directory: &Path, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|e| panic!("{program} is installed: {e}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Waits for the log line that tells the address; the log is read on, so that it never blocks.
fn listening_on(process: &mut Child) -> String {
    let mut log = BufReader::new(process.stderr.take().unwrap());
    let mut domain = None;
    let mut seen = String::new();
    while domain.is_none() {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "docker-registry ended: {seen}");
        let address = line.split("listening on ").nth(1).map(|rest| {
            rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect()
        });
        domain = domain.or(address);
        seen += &line;
    }
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    domain.unwrap()
}
