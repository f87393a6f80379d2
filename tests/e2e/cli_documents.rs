//! Documents of images that are too much, or nonsense: refused with little memory, and gone.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use berth_tests::Engine;
use berth_types::Digest;
use serde_json::{Value, json};

/// How much the daemon may grow, in kB.
const MEMORY: u64 = 50 << 10;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A registry that has whatever it was given, under any name. It stands as long as the test's
/// process.
struct Site {
    port: u16,
}

/// Documents by tag or digest, with the types that they are sent as.
type Documents = HashMap<String, (&'static str, Vec<u8>)>;

impl Site {
    fn start(mut documents: Documents) -> Self {
        let latest = documents["latest"].clone();
        documents.insert(Digest::of(&latest.1).to_string(), latest);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let documents = Arc::new(documents);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let documents = documents.clone();
                // Clients that leave in the middle are what this is about.
                thread::spawn(move || drop(answer(client, &documents)));
            }
        });
        Self { port }
    }
}

/// Answers one request, by the last part of its path.
fn answer(mut client: TcpStream, documents: &Documents) -> io::Result<()> {
    let mut lines = BufReader::new(client.try_clone()?).lines();
    // What tries TLS first sends no lines of text.
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((kind, body)) = documents.get(name) else {
        let status = if path == "/v2/" { "200 OK" } else { "404 Not Found" };
        return write!(
            client,
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
    };
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: \
         {length}\r\n\r\n"
    )?;
    match method {
        "HEAD" => Ok(()),
        _ => client.write_all(body),
    }
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len() })
}

fn manifest(config: Value, layers: Vec<Value>) -> Value {
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers })
}

fn index(entries: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries })
}

/// One document under the tag `latest`.
fn alone(kind: &'static str, document: &Value) -> Documents {
    [("latest".to_owned(), (kind, document.to_string().into_bytes()))].into()
}

/// The manifest of a config that is there too, as it is or not as it is said to be.
fn with_config(said: Value, config: Vec<u8>) -> Documents {
    let digest = said["digest"].as_str().unwrap().to_owned();
    let mut documents = alone(MANIFEST, &manifest(said, vec![]));
    documents.insert(digest, (CONFIG, config));
    documents
}

/// Indexes in each other, a hundred of them, and nothing else.
fn nested() -> Documents {
    let mut documents = Documents::new();
    let mut inner = index(&[]).to_string().into_bytes();
    for _ in 0..100 {
        let entry = descriptor(INDEX, &inner);
        documents.insert(Digest::of(&inner).to_string(), (INDEX, inner));
        inner = index(&[entry]).to_string().into_bytes();
    }
    documents.insert("latest".to_owned(), (INDEX, inner));
    documents
}

/// An index that lists itself, as only a registry that lies can have it.
fn cyclic() -> Documents {
    let digest = Digest::of(b"itself").to_string();
    let entry = |size: usize| json!({ "mediaType": INDEX, "digest": digest, "size": size });
    // The size of what lists itself is part of it.
    let size = index(&[entry(100)]).to_string().len();
    let document = index(&[entry(size)]).to_string().into_bytes();
    assert_eq!(document.len(), size);
    let named = |name: &str| (name.to_owned(), (INDEX, document.clone()));
    [named("latest"), named(&digest)].into()
}

/// An index of images that don't say what they are for, as many as fit.
fn wide() -> Documents {
    let entries: Vec<_> =
        (0..20_000).map(|n: u32| descriptor(MANIFEST, &n.to_le_bytes())).collect();
    alone(INDEX, &index(&entries))
}

/// A document that is deeper than any stack.
fn deep() -> Documents {
    let (open, close) = ("[".repeat(1 << 19), "]".repeat(1 << 19));
    let text = format!("{{\"schemaVersion\":2,\"x\":{open}{close},\"manifests\":{open}{close}}}");
    [("latest".to_owned(), (INDEX, text.into_bytes()))].into()
}

fn padded(mut document: Value, bytes: usize) -> Value {
    document["annotations"] = json!({ "padding": "x".repeat(bytes) });
    document
}

/// What is offered, and what is said of it.
fn cases() -> Vec<(&'static str, Documents, &'static str)> {
    let config = json!({ "os": "linux", "architecture": "amd64" }).to_string().into_bytes();
    let large = vec![b' '; 50 << 20];
    let said = descriptor(CONFIG, &config);
    let mut both = manifest(said.clone(), vec![]);
    both["manifests"] = json!([]);
    let layers = |count| vec![descriptor(LAYER, b"x"); count];
    vec![
        (
            "a large manifest",
            alone(MANIFEST, &padded(manifest(said.clone(), vec![]), 5 << 20)),
            "larger than 4194304 bytes",
        ),
        (
            "a very large index",
            alone(INDEX, &padded(index(&[]), 200 << 20)),
            "larger than 4194304 bytes",
        ),
        ("nested indexes", nested(), ""),
        ("a cyclic index", cyclic(), ""),
        ("a wide index", wide(), ""),
        ("a deep document", deep(), "malformed"),
        (
            "ten thousand layers",
            alone(MANIFEST, &manifest(said.clone(), layers(10_000))),
            "10000 layers",
        ),
        (
            "a large config",
            with_config(descriptor(CONFIG, &large), large.clone()),
            "52428800 bytes",
        ),
        ("a config larger than said", with_config(said, large), ""),
        ("a manifest that is an index", alone(MANIFEST, &both), "both manifest and index"),
        ("an index that is a manifest", alone(INDEX, &both), "both manifest and index"),
    ]
}

#[test]
fn cli_documents_that_are_too_much_are_refused_with_little_memory() {
    let Some(engine) = Engine::berth() else { return };
    for (what, documents, why) in cases() {
        let site = Site::start(documents);
        engine.forget_peak();
        let before = engine.peak();
        let name = format!("127.0.0.1:{}/a", site.port);
        let pull = engine.cli(&["pull", &name]).exited(1);
        println!("{what}: {}", pull.stderr);
        assert!(pull.stderr.contains(why), "{what}: {}", pull.stderr);
        let grown = engine.peak().saturating_sub(before);
        assert!(grown <= MEMORY, "{what} took {grown} kB");
        for list in [["content", "ls", "-q"], ["leases", "ls", "-q"], ["images", "ls", "-q"]] {
            assert_eq!(engine.ctr(&list).success().stdout, "", "{what}: {list:?}");
        }
        engine.cli(&["system", "check"]).success();
    }
}
