//! Image archives made for tests.

use std::io::Write;
use std::path::Path;

use berth_types::image::{Descriptor, ImageConfig, Index, Manifest, RootFs, media_type};
use berth_types::{Digest, Platform};
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

/// A file of a layer: its path and bytes.
pub(crate) type File = (&'static str, &'static [u8]);

/// Writes an OCI archive of the image `name`, with a gzip layer of files for each of `layers`.
pub(crate) fn write_image(path: &Path, name: &str, layers: &[&[File]]) {
    let mut archive = Builder::new(std::fs::File::create(path).unwrap());
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for files in layers {
        let layer = layer(files);
        diff_ids.push(Digest::of(&layer));
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&layer).unwrap();
        let bytes = encoder.finish().unwrap();
        descriptors.push(blob(&mut archive, media_type::OCI_LAYER_GZIP, &bytes));
    }
    let host = Platform::host();
    let config = ImageConfig {
        os: host.os,
        architecture: host.architecture,
        rootfs: RootFs { kind: "layers".into(), diff_ids },
        ..Default::default()
    };
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.into()),
        artifact_type: None,
        config: blob(&mut archive, media_type::OCI_CONFIG, &config),
        layers: descriptors,
        annotations: Default::default(),
    };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut manifest = blob(&mut archive, media_type::OCI_MANIFEST, &manifest);
    manifest.annotations.insert("io.containerd.image.name".into(), name.into());
    let index = Index {
        schema_version: 2,
        media_type: None,
        manifests: vec![manifest],
        annotations: Default::default(),
    };
    add(&mut archive, "index.json", &serde_json::to_vec(&index).unwrap());
    add(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    archive.finish().unwrap();
}

fn layer(files: &[File]) -> Vec<u8> {
    let mut layer = Builder::new(Vec::new());
    for (path, bytes) in files {
        add(&mut layer, path, bytes);
    }
    layer.into_inner().unwrap()
}

fn blob<W: Write>(archive: &mut Builder<W>, kind: &str, bytes: &[u8]) -> Descriptor {
    let digest = Digest::of(bytes);
    add(archive, &format!("blobs/sha256/{}", digest.hex()), bytes);
    Descriptor::new(kind, digest, bytes.len() as u64)
}

fn add<W: Write>(archive: &mut Builder<W>, path: &str, bytes: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes).unwrap();
}
