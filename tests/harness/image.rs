//! Images that the tests make from Debian's busybox.

use std::fs;
use std::io::Write;

use berth_types::Digest;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// Where Debian's package busybox-static puts its program.
const BUSYBOX: &str = "/bin/busybox";

/// The media type of most layers.
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// One layer: its uncompressed tar and the blob that is made of it, a gzip unless said otherwise.
#[derive(Clone)]
pub struct Layer {
    tar: Vec<u8>,
    blob: Vec<u8>,
    media_type: &'static str,
}

impl Layer {
    /// A layer of what `fill` appends.
    pub fn new(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Self {
        let mut builder = Builder::new(Vec::new());
        fill(&mut builder);
        Self::of_tar(builder.into_inner().expect("end the tar"))
    }

    /// A layer of this tar.
    pub fn of_tar(tar: Vec<u8>) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // In the pieces that berth compresses, so that it can make the same again.
        for piece in tar.chunks(128 << 10) {
            encoder.write_all(piece).expect("compress");
        }
        let blob = encoder.finish().expect("compress");
        Self { tar, blob, media_type: GZIP }
    }

    /// The same layer, not compressed.
    #[must_use]
    pub fn uncompressed(mut self) -> Self {
        self.blob.clone_from(&self.tar);
        self.media_type = "application/vnd.oci.image.layer.v1.tar";
        self
    }

    /// The same layer, compressed by zstd.
    #[must_use]
    pub fn zstd(mut self) -> Self {
        self.blob = zstd::encode_all(self.tar.as_slice(), 0).expect("compress");
        self.media_type = "application/vnd.oci.image.layer.v1.tar+zstd";
        self
    }

    /// The same layer, compressed by the program gzip, which nothing else makes the same of.
    #[must_use]
    pub fn compressed_elsewhere(mut self) -> Self {
        let mut gzip = std::process::Command::new("gzip");
        let piped = std::process::Stdio::piped;
        let mut child = gzip.arg("-cn").stdin(piped()).stdout(piped()).spawn().expect("gzip");
        let mut input = child.stdin.take().expect("a pipe");
        let tar = self.tar.clone();
        let writing = std::thread::spawn(move || input.write_all(&tar).expect("feed gzip"));
        self.blob = child.wait_with_output().expect("run gzip").stdout;
        writing.join().expect("feed gzip");
        self
    }

    /// A layer of a few files with their content.
    pub fn of_files(files: &[(&str, &[u8])]) -> Self {
        Self::new(|tar| {
            for (path, content) in files {
                append(tar, path, EntryType::Regular, 0o644, content, None);
            }
        })
    }

    /// A layer of one file that doesn't compress.
    pub fn of_noise(path: &str, seed: u64, length: usize) -> Self {
        Self::of_files(&[(path, &noise(seed, length))])
    }

    /// A layer of these very bytes, whatever they are. The image's configuration does not know
    /// what they unpack to.
    pub fn untrue(blob: Vec<u8>) -> Self {
        Self { tar: Vec::new(), blob, media_type: GZIP }
    }

    /// The bytes as a registry has them.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The digest of those bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.blob)
    }
}

/// An image: layers and a configuration.
#[derive(Clone)]
pub struct Image {
    name: String,
    layers: Vec<Layer>,
    config: Value,
    architecture: String,
}

impl Image {
    /// A small system: busybox and its applets, a user database, `/tmp` and the usual directories.
    /// Its command is a shell.
    pub fn busybox(name: &str) -> Self {
        Self::of(name, vec![Layer::new(fill_busybox)])
            .config("Env", json!(["PATH=/bin:/usr/bin", "FLAVOUR=busybox"]))
            .config("Cmd", json!(["sh"]))
            .config("WorkingDir", json!("/"))
    }

    /// An image of these layers, lowest first, which says nothing of what to run.
    pub fn of(name: &str, layers: Vec<Layer>) -> Self {
        let architecture = architecture().to_owned();
        Self { name: name.to_owned(), layers, config: json!({}), architecture }
    }

    /// The same image by another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The same image with each layer changed.
    #[must_use]
    pub fn map_layers(mut self, change: impl FnMut(Layer) -> Layer) -> Self {
        self.layers = self.layers.into_iter().map(change).collect();
        self
    }

    /// The same image with one more layer.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// The same image with `key` of its configuration set.
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// The same image for another architecture.
    #[must_use]
    pub fn for_architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.architecture);
        self
    }

    /// The name, with registry and tag where it has them.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes of the layers' tars.
    pub fn size(&self) -> usize {
        self.layers.iter().map(|layer| layer.tar.len()).sum()
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The image's configuration document.
    pub fn config_document(&self) -> Vec<u8> {
        let diff_ids: Vec<_> =
            self.layers.iter().map(|layer| Digest::of(&layer.tar).to_string()).collect();
        let document = json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": "2024-01-02T03:04:05Z",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        document.to_string().into_bytes()
    }

    /// The manifest, in OCI's form.
    pub fn manifest(&self) -> Vec<u8> {
        let config = self.config_document();
        let layers: Vec<_> =
            self.layers.iter().map(|layer| descriptor(layer.media_type, &layer.blob)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers,
        });
        manifest.to_string().into_bytes()
    }

    /// What an index says of the image.
    pub(crate) fn entry(&self) -> Value {
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest());
        entry["platform"] = json!({ "os": "linux", "architecture": self.architecture });
        entry
    }

    /// The image as an archive of an OCI layout, which `ctr images import` takes.
    pub fn archive(&self) -> Vec<u8> {
        let manifest = self.manifest();
        let mut entry = self.entry();
        entry["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();

        let mut archive = Builder::new(Vec::new());
        let mut file = |path: &str, content: &[u8]| {
            append(&mut archive, path, EntryType::Regular, 0o644, content, None);
        };
        file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        file("index.json", index.as_bytes());
        let mut blob = |content: &[u8]| {
            file(&format!("blobs/sha256/{}", Digest::of(content).hex()), content);
        };
        blob(&manifest);
        blob(&self.config_document());
        for layer in &self.layers {
            blob(&layer.blob);
        }
        archive.into_inner().expect("end the archive")
    }
}

impl Image {
    /// The image as `docker save` makes it, which `docker load` takes.
    pub fn docker_archive(&self) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        let mut file = |path: &str, content: &[u8]| {
            append(&mut archive, path, EntryType::Regular, 0o644, content, None);
        };
        let names: Vec<_> = (0..self.layers.len()).map(|n| format!("{n}/layer.tar")).collect();
        for (name, layer) in names.iter().zip(&self.layers) {
            file(name, &layer.tar);
        }
        file("config.json", &self.config_document());
        let manifest =
            json!([{ "Config": "config.json", "RepoTags": [self.name], "Layers": names }]);
        file("manifest.json", manifest.to_string().as_bytes());
        archive.into_inner().expect("end the archive")
    }
}

/// A descriptor of `content`.
pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": Digest::of(content).to_string(),
        "size": content.len(),
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

fn fill_busybox(tar: &mut Builder<Vec<u8>>) {
    let program = fs::read(BUSYBOX).expect("install Debian's package busybox-static");
    for (directory, mode) in [
        ("bin", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
        ("var", 0o755),
    ] {
        append(tar, &format!("{directory}/"), EntryType::Directory, mode, b"", None);
    }
    append(tar, "bin/busybox", EntryType::Regular, 0o755, &program, None);
    let applets = crate::Finished::run(BUSYBOX, &["--list"], b"").success();
    for applet in applets.stdout.lines().filter(|&applet| applet != "busybox") {
        let path = format!("bin/{applet}");
        append(tar, &path, EntryType::Link, 0o755, b"", Some("bin/busybox"));
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n";
    append(tar, "etc/passwd", EntryType::Regular, 0o644, passwd, None);
    let group = b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\n";
    append(tar, "etc/group", EntryType::Regular, 0o644, group, None);
}

fn append(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    content: &[u8],
    link: Option<&str>,
) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_mtime(1_700_000_000);
    match link {
        Some(target) => tar.append_link(&mut header, path, target),
        None => tar.append_data(&mut header, path, content),
    }
    .expect("append to a tar");
}

/// Bytes that don't compress, other ones for each seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
