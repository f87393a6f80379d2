//! Images made for tests: layers, configs, manifests.

use std::io::Write;

use berth_types::image::{Descriptor, media_type};
use berth_types::{Digest, Platform};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::docker::DockerRegistry;

/// A layer's archive being written.
pub(crate) struct LayerBuilder(Builder<Vec<u8>>);

impl LayerBuilder {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, kind: EntryType, path: &str, mode: u32, uid: u64, data: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        self.0.append_data(&mut header, path, data).unwrap();
        self
    }

    pub(crate) fn file(self, path: &str, data: &[u8]) -> Self {
        self.add(EntryType::Regular, path, 0o644, 0, data)
    }

    pub(crate) fn special_file(self, path: &str, mode: u32, uid: u64, data: &[u8]) -> Self {
        self.add(EntryType::Regular, path, mode, uid, data)
    }

    pub(crate) fn directory(self, path: &str, mode: u32, uid: u64) -> Self {
        self.add(EntryType::Directory, path, mode, uid, b"")
    }

    pub(crate) fn link(mut self, path: &str, to: &str) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Link);
        header.set_mode(0o644);
        header.set_size(0);
        self.0.append_link(&mut header, path, to).unwrap();
        self
    }

    pub(crate) fn end(self) -> Layer {
        let tar = self.0.into_inner().unwrap();
        Layer { blob: tar.clone(), tar, media_type: media_type::OCI_LAYER }
    }
}

/// A layer: its archive, and the blob made of it.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) tar: Vec<u8>,
    pub(crate) blob: Vec<u8>,
    media_type: &'static str,
}

impl Layer {
    pub(crate) fn gzip(mut self) -> Self {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        // In the pieces that berth compresses, so that it can make the same again.
        for piece in self.tar.chunks(128 << 10) {
            encoder.write_all(piece).unwrap();
        }
        self.blob = encoder.finish().unwrap();
        self.media_type = media_type::OCI_LAYER_GZIP;
        self
    }

    pub(crate) fn zstd(mut self) -> Self {
        self.blob = zstd::encode_all(self.tar.as_slice(), 1).unwrap();
        self.media_type = media_type::OCI_LAYER_ZSTD;
        self
    }

    /// As Docker calls it.
    fn dockers(mut self) -> Self {
        self.media_type = match self.media_type {
            media_type::OCI_LAYER_GZIP => media_type::DOCKER_LAYER_GZIP,
            _ => media_type::DOCKER_LAYER,
        };
        self
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type, Digest::of(&self.blob), self.blob.len() as u64)
    }
}

/// An image: its documents and layers.
pub(crate) struct TestImage {
    types: (&'static str, &'static str),
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) layers: Vec<Layer>,
}

impl TestImage {
    pub(crate) fn new(architecture: &str, layers: Vec<Layer>) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(&layer.tar)).collect();
        Self::with_diff_ids(architecture, layers, &diff_ids)
    }

    /// With the media types of Docker's schema 2.
    pub(crate) fn dockers(architecture: &str, layers: Vec<Layer>) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(&layer.tar)).collect();
        let layers = layers.into_iter().map(Layer::dockers).collect();
        let types = (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG);
        Self::with(types, architecture, layers, &diff_ids)
    }

    pub(crate) fn with_diff_ids(
        architecture: &str,
        layers: Vec<Layer>,
        diff_ids: &[Digest],
    ) -> Self {
        let types = (media_type::OCI_MANIFEST, media_type::OCI_CONFIG);
        Self::with(types, architecture, layers, diff_ids)
    }

    fn with(
        types: (&'static str, &'static str),
        architecture: &str,
        layers: Vec<Layer>,
        diff_ids: &[Digest],
    ) -> Self {
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let described: Vec<_> = layers.iter().map(Layer::descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": types.0,
            "config": Descriptor::new(types.1, Digest::of(&config), config.len() as u64),
            "layers": described,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        Self { types, config, manifest, layers }
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        let (digest, size) = (Digest::of(&self.manifest), self.manifest.len() as u64);
        Descriptor::new(self.types.0, digest, size)
    }

    /// The same as an entry of an index.
    pub(crate) fn entry(&self, platform: &str) -> Descriptor {
        let platform = Some(platform.parse::<Platform>().unwrap());
        Descriptor { platform, ..self.descriptor() }
    }

    /// Uploads all of it; returns its reference.
    pub(crate) async fn push(&self, registry: &DockerRegistry, name: &str) -> String {
        registry.put_blob(name, self.types.1, &self.config).await;
        for layer in &self.layers {
            registry.put_blob(name, layer.media_type, &layer.blob).await;
        }
        registry.put_manifest(name, "v1", self.types.0, &self.manifest).await;
        format!("{}/{name}:v1", registry.domain)
    }
}

/// A tar archive of files and symbolic links.
pub(crate) fn archive(files: &[(String, Vec<u8>)], links: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, data.as_slice()).unwrap();
    }
    for (path, target) in links {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, path, target).unwrap();
    }
    builder.into_inner().unwrap()
}

fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    (format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes.to_vec())
}

/// An OCI layout with one entry, annotated as `annotations` says.
pub(crate) fn layout(image: &TestImage, annotations: &[(&str, &str)]) -> Vec<u8> {
    let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let entry = Descriptor { annotations, ..image.descriptor() };
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    let mut files: Vec<_> = image.layers.iter().map(|layer| blob(&layer.blob)).collect();
    files.extend([blob(&image.config), blob(&image.manifest)]);
    files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    files.push(("index.json".to_owned(), serde_json::to_vec(&index).unwrap()));
    archive(&files, &[])
}

/// An image with whatever makes layers depend on each other: whiteouts, an opaque directory,
/// a directory that an upper layer leaves out, hard links into a lower layer.
pub(crate) fn layered() -> TestImage {
    let base = LayerBuilder::new()
        .directory("etc", 0o750, 7)
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        .directory("a", 0o755, 0)
        .file("a/removed", b"old")
        .file("a/kept", b"kept")
        .directory("opaque", 0o755, 0)
        .file("opaque/old", b"old")
        .file("hello", &noise(1, 300_000));
    let changes = LayerBuilder::new()
        .file("etc/hosts", b"127.0.0.1 localhost\n")
        .file("a/.wh.removed", b"")
        .directory("opaque", 0o755, 0)
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new");
    let links = LayerBuilder::new().link("etc/passwd.link", "etc/passwd").file("etc/motd", b"hi");
    let top = LayerBuilder::new().file("etc/top", b"top").file("big", &noise(2, 500_000));
    let layers = vec![base.end().gzip(), changes.end().zstd(), links.end(), top.end().gzip()];
    TestImage::new("amd64", layers)
}

/// Bytes that don't compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
