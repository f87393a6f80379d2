//! To an archive that the client receives: an OCI layout that `docker load` understands too.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use berth_metadata::Scope;
use berth_proto::containerd::types::transfer::{ImageExportStream, ImageStore};
use berth_types::image::{Descriptor, Document, MAX_SIZE, Manifest, media_type};
use berth_types::{Digest, Error, Platform, Reference, Result, ResultExt};

use super::super::backend::Backend;
use super::progress::Reporter;
use super::{bytes, platform};

/// Sends the images that `from` names. Layers that were discarded are made or fetched again for it.
///
/// # Errors
/// `NotFound` without an image, its content or the stream; `FailedPrecondition` or `DataLoss` when a
/// layer can't be had again.
pub(super) async fn export(
    backend: &Backend,
    scope: &Scope,
    from: ImageStore,
    to: ImageExportStream,
    reporter: &Reporter,
) -> Result<()> {
    let sender = bytes::send(backend.streams.take(scope.namespace(), &to.stream)?);
    let mut names = vec![from.name];
    names.extend(from.extra_references.into_iter().map(|reference| reference.name));
    names.retain(|name| !name.is_empty());
    let platforms = match to.platforms.as_slice() {
        _ if to.all_platforms => Vec::new(),
        [] => vec![Platform::host()],
        some => some.iter().map(platform).collect(),
    };
    let targets = names.iter().map(|name| target(scope, name)).collect::<Result<_>>()?;
    let (images, wanted, named) = (scope.clone(), platforms.clone(), names.clone());
    let write = async move || {
        let write = move || {
            // Made here, because it writes when it is dropped.
            let archive = Archive {
                scope: images,
                tar: Builder::new(sender),
                written: BTreeSet::new(),
                platforms: wanted,
                without_foreign: to.skip_non_distributable,
                images: Vec::new(),
                index: Vec::new(),
            };
            archive.write(&named, !to.skip_compatibility_manifest)
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|e| Error::internal(format!("the export died: {e}")))?
    };
    backend.puller.with_layers(scope.namespace(), targets, platforms, write).await?;
    for name in names {
        reporter.event("exported", &name);
    }
    Ok(())
}

/// What an image points at.
fn target(scope: &Scope, name: &str) -> Result<Descriptor> {
    let target = scope.images().get(name)?.target.unwrap_or_default();
    let size = u64::try_from(target.size).unwrap_or_default();
    Ok(Descriptor::new(target.media_type, target.digest.parse()?, size))
}

/// An archive that is being written.
struct Archive<W: Write> {
    scope: Scope,
    tar: Builder<W>,
    /// Blobs that are in it.
    written: BTreeSet<String>,
    /// Those of which images are wanted; none for all.
    platforms: Vec<Platform>,
    /// Leave layers out that must not be passed on.
    without_foreign: bool,
    /// Entries of Docker's `manifest.json`.
    images: Vec<Value>,
    /// Entries of `index.json`.
    index: Vec<Value>,
}

impl<W: Write> Archive<W> {
    /// Writes all of it.
    fn write(mut self, names: &[String], for_docker: bool) -> Result<()> {
        for name in names {
            self.add(name)?;
        }
        self.finish(for_docker)
    }

    /// Adds the image called `name`.
    fn add(&mut self, name: &str) -> Result<()> {
        let target = target(&self.scope, name)?;
        self.add_document(name, &target)?;
        let tag = name.parse::<Reference>().ok().and_then(|name| name.tag().map(str::to_owned));
        let mut entry = serde_json::to_value(&target)
            .map_err(|e| Error::internal(format!("write a descriptor: {e}")))?;
        entry["annotations"] = json!({
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": tag.unwrap_or_default(),
        });
        self.index.push(entry);
        Ok(())
    }

    /// Adds a manifest or index with what it refers to.
    fn add_document(&mut self, name: &str, described: &Descriptor) -> Result<()> {
        let bytes = self.read(&described.digest)?;
        self.add_blob(described)?;
        match Document::parse(&described.media_type, &bytes)? {
            Document::Manifest(manifest) => self.add_image(name, &manifest),
            Document::Index(index) => {
                for manifest in index.chosen(&self.platforms) {
                    // Of an image that was pulled for one platform, only that is there.
                    if self.scope.content().info(&manifest.digest).is_ok() {
                        self.add_document(name, &manifest)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn add_image(&mut self, name: &str, manifest: &Manifest) -> Result<()> {
        self.add_blob(&manifest.config)?;
        for layer in &manifest.layers {
            if !(self.without_foreign && media_type::is_foreign(&layer.media_type)) {
                self.add_blob(layer)?;
            }
        }
        self.images.push(json!({
            "Config": path(&manifest.config.digest),
            "RepoTags": [name],
            "Layers": manifest.layers.iter().map(|layer| path(&layer.digest)).collect::<Vec<_>>(),
        }));
        Ok(())
    }

    fn add_blob(&mut self, described: &Descriptor) -> Result<()> {
        let path = path(&described.digest);
        if !self.written.insert(path.clone()) {
            return Ok(());
        }
        let reader = self.scope.content().reader(&described.digest)?;
        self.append(&path, reader.size, reader.file)
    }

    /// Ends the archive.
    fn finish(mut self, for_docker: bool) -> Result<()> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": self.index,
        });
        let document = |value: Value| value.to_string().into_bytes();
        let mut documents = vec![
            ("oci-layout", document(json!({ "imageLayoutVersion": "1.0.0" }))),
            ("index.json", document(index)),
        ];
        if for_docker {
            let images = std::mem::take(&mut self.images);
            documents.push(("manifest.json", document(Value::Array(images))));
        }
        for (path, bytes) in documents {
            self.append(path, bytes.len() as u64, bytes.as_slice())?;
        }
        self.tar.finish().context(|| "write the archive")
    }

    fn append(&mut self, path: &str, size: u64, bytes: impl Read) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o444);
        header.set_size(size);
        self.tar.append_data(&mut header, path, bytes).context(|| "write the archive")
    }

    /// A document's bytes.
    fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let reader = self.scope.content().reader(digest)?;
        let mut bytes = Vec::new();
        reader.file.take(MAX_SIZE).read_to_end(&mut bytes).context(|| "read content")?;
        Ok(bytes)
    }
}

/// Where a layout has a blob.
fn path(digest: &Digest) -> String {
    format!("blobs/{}", digest.as_str().replacen(':', "/", 1))
}
