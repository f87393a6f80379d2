//! The image that berth carries in itself, so that a machine without a registry can run something.
//!
//! It holds one static program, `embedded/hello.rs`, with a link for each of its commands. The
//! archive is made the same byte for byte wherever it is built from the same program.

use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::sync::Arc;

use berth_engine::Carried;
use berth_metadata::Scope;
use berth_pull::{ImportRequest, Progress, Puller};
use berth_types::image::{
    ContainerConfig, Descriptor, ImageConfig, Index, Manifest, RootFs, media_type,
};
use berth_types::{Digest, Error, Kind, Platform, Result, ResultExt};
use tar::{Builder, EntryType, Header};

/// The image's name.
pub(crate) const NAME: &str = "berth.local/hello:latest";

/// The program.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));
/// Its commands besides the greeting.
const COMMANDS: &[&str] = &["cat", "echo", "env", "false", "id", "sleep", "true"];
/// When everything in it was made: builds must not differ by the clock.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Puts the image into the stores of a namespace, unless it is there.
///
/// # Errors
/// Those of [`Puller::import`].
pub(crate) async fn ensure(puller: &Puller, scope: &Scope) -> Result<()> {
    match scope.images().get(NAME) {
        Err(error) if error.kind() == Kind::NotFound => {}
        found => return found.map(drop),
    }
    let request = ImportRequest {
        namespace: scope.namespace().to_owned(),
        platform: Platform::host(),
        snapshotter: scope.snapshotter()?,
    };
    let archive = tokio::task::spawn_blocking(archive).await;
    let archive = archive.map_err(|e| Error::internal(format!("building {NAME} died: {e}")))??;
    puller.import(request, Cursor::new(archive), Progress::silent()).await.map(drop)
}

/// Makes the image when the engine is asked for it.
pub(crate) fn carried(puller: &Puller) -> Carried {
    let puller = puller.clone();
    Arc::new(move |name, scope| {
        let puller = puller.clone();
        Box::pin(async move {
            if name != NAME {
                return Ok(false);
            }
            ensure(&puller, &scope).await.map(|()| true)
        })
    })
}

/// The image as an OCI archive (`image-layout.md`), uncompressed.
///
/// # Errors
/// None is expected: everything happens in memory.
fn archive() -> Result<Vec<u8>> {
    write_archive().context(|| format!("build the embedded image {NAME}"))
}

/// Writes layer, config, manifest and index in the order of their references.
fn write_archive() -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let layer = layer()?;
    let layer = add_blob(&mut archive, media_type::OCI_LAYER, &layer)?;
    let config = serde_json::to_vec(&config(&layer))?;
    let config = add_blob(&mut archive, media_type::OCI_CONFIG, &config)?;
    let manifest = serde_json::to_vec(&manifest(config, layer))?;
    let mut manifest = add_blob(&mut archive, media_type::OCI_MANIFEST, &manifest)?;
    manifest.platform = Some(Platform::host());
    manifest.annotations = BTreeMap::from([
        ("io.containerd.image.name".to_owned(), NAME.to_owned()),
        ("org.opencontainers.image.ref.name".to_owned(), "latest".to_owned()),
    ]);
    add_file(&mut archive, "index.json", 0o644, &serde_json::to_vec(&index(manifest))?)?;
    add_file(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.into_inner()
}

/// The file system, as an uncompressed layer.
fn layer() -> io::Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    add_directory(&mut layer, "bin/", 0o755)?;
    add_file(&mut layer, "bin/hello", 0o755, PROGRAM)?;
    for command in COMMANDS {
        let mut header = header(EntryType::Symlink, 0o777);
        layer.append_link(&mut header, format!("bin/{command}"), "hello")?;
    }
    add_directory(&mut layer, "etc/", 0o755)?;
    add_file(&mut layer, "etc/group", 0o644, b"root:x:0:\nnobody:x:65534:\n")?;
    let passwd = b"root:x:0:0:root:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    add_file(&mut layer, "etc/passwd", 0o644, passwd)?;
    add_directory(&mut layer, "tmp/", 0o1777)?;
    layer.into_inner()
}

/// How containers of the image start.
fn config(layer: &Descriptor) -> ImageConfig {
    let platform = Platform::host();
    ImageConfig {
        created: Some(CREATED.to_owned()),
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        config: ContainerConfig {
            env: vec!["PATH=/bin".to_owned()],
            cmd: vec!["hello".to_owned()],
            ..ContainerConfig::default()
        },
        // The layer is not compressed: the digest of the blob is that of its content.
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.digest.clone()] },
        ..ImageConfig::default()
    }
}

/// The manifest over config and layer.
fn manifest(config: Descriptor, layer: Descriptor) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config,
        layers: vec![layer],
        annotations: BTreeMap::new(),
    }
}

/// The archive's index.
fn index(manifest: Descriptor) -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: vec![manifest],
        annotations: BTreeMap::new(),
    }
}

/// Adds a blob under its digest and describes it.
fn add_blob(
    archive: &mut Builder<Vec<u8>>,
    media_type: &str,
    bytes: &[u8],
) -> io::Result<Descriptor> {
    let digest = Digest::of(bytes);
    add_file(archive, &format!("blobs/sha256/{}", digest.hex()), 0o644, bytes)?;
    Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
}

/// Adds a regular file.
fn add_file(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut header = header(EntryType::Regular, mode);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes)
}

/// Adds an empty directory.
fn add_directory(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32) -> io::Result<()> {
    tar.append_data(&mut header(EntryType::Directory, mode), path, io::empty())
}

/// A header that belongs to root and to no time.
fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_the_same_each_time_and_its_blobs_have_their_digests() {
        let archive = archive().unwrap();
        assert_eq!(archive, super::archive().unwrap());
        let mut blobs = 0;
        for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            io::copy(&mut entry, &mut bytes).unwrap();
            if let Some(hex) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(Digest::of(&bytes).hex(), hex);
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3);
    }

    #[test]
    fn the_program_greets_and_has_every_command() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("hello");
        std::fs::write(&program, PROGRAM).unwrap();
        let run = |arguments: &[&str]| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::process::Command::new(&program).args(arguments).output().unwrap()
        };
        assert!(run(&[]).stdout.starts_with(b"Hello from a berth container!"));
        assert_eq!(run(&["echo", "a", "b"]).stdout, b"a b\n");
        assert_eq!(run(&["false"]).status.code(), Some(1));
        assert_eq!(run(&["no-such-command"]).status.code(), Some(127));
        for command in COMMANDS.iter().filter(|&&command| command != "sleep") {
            assert_ne!(run(&[command]).status.code(), Some(127), "{command}");
        }
    }
}
