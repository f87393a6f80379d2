//! Which images an archive has, and what they are called.

use std::collections::HashMap;

use berth_metadata::{Scope, WriterRequest};
use berth_types::image::{Descriptor, Document, Manifest, media_type};
use berth_types::{Digest, Error, Kind, Reference, Result};
use serde::Deserialize;

use super::archive::Archive;
use crate::blocking;

/// The annotation by which containerd and Docker give an entry of a layout its full name.
const FULL_NAME: &str = "io.containerd.image.name";
/// The specification's: a full name too, or only a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image of an archive.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) target: Descriptor,
}

/// Finds the images that have names.
///
/// # Errors
/// `InvalidArgument` when there are none, and for malformed documents.
pub(super) async fn find(scope: &Scope, archive: &Archive) -> Result<Vec<Named>> {
    let mut found = match (archive.document("index.json"), archive.document("manifest.json")) {
        (Some(index), _) => in_layout(index)?,
        (None, Some(list)) => saved_by_docker(scope, archive, list).await?,
        (None, None) => {
            return Err(Error::invalid_argument(
                "the archive has neither index.json nor manifest.json: it holds no images",
            ));
        }
    };
    found.dedup_by(|a, b| a.name == b.name);
    if found.is_empty() {
        return Err(Error::invalid_argument(
            "no image in the archive has a name: give it one where it is written",
        ));
    }
    Ok(found)
}

fn in_layout(index: &[u8]) -> Result<Vec<Named>> {
    let Document::Index(index) = Document::parse(media_type::OCI_INDEX, index)? else {
        return Err(Error::invalid_argument("index.json in the archive is no index"));
    };
    let named = index.manifests.into_iter().filter_map(|mut target| {
        let full = target.annotations.get(FULL_NAME);
        let name =
            full.or_else(|| target.annotations.get(REF_NAME).filter(|n| n.contains([':', '/'])))?;
        let name = name.parse::<Reference>().map(|reference| reference.canonical().to_string());
        target.annotations.clear();
        Some(name.map(|name| Named { name, target }))
    });
    named.collect()
}

/// An entry of the list that `docker save` writes.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

async fn saved_by_docker(scope: &Scope, archive: &Archive, list: &[u8]) -> Result<Vec<Named>> {
    let list: Vec<Saved> = serde_json::from_slice(list)
        .map_err(|e| Error::invalid_argument(format!("manifest.json in the archive: {e}")))?;
    let mut named = Vec::new();
    for saved in list {
        let target = make_manifest(scope, archive, &saved).await?;
        for tag in saved.repo_tags.unwrap_or_default() {
            let name = tag.parse::<Reference>()?.canonical().to_string();
            named.push(Named { name, target: target.clone() });
        }
    }
    Ok(named)
}

/// Makes the manifest that such an archive lacks.
async fn make_manifest(scope: &Scope, archive: &Archive, saved: &Saved) -> Result<Descriptor> {
    let part = |path: &str, media_type: &str| {
        let stored = archive.file(path)?;
        Ok(Descriptor::new(media_type, stored.digest.clone(), stored.size))
    };
    let layers = saved.layers.iter().flatten();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::DOCKER_MANIFEST.to_owned()),
        artifact_type: None,
        config: part(&saved.config, media_type::DOCKER_CONFIG)?,
        layers: layers.map(|path| part(path, media_type::DOCKER_LAYER)).collect::<Result<_>>()?,
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|e| Error::internal(format!("write an image manifest: {e}")))?;
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let request = WriterRequest {
        reference: format!("import-{digest}"),
        total: size,
        expected: Some(digest.clone()),
    };
    let done = match scope.content().writer(request).await {
        Ok(mut writer) => {
            let writer = blocking(move || {
                if writer.status().offset != size {
                    writer.truncate(0)?;
                    writer.write(&bytes)?;
                }
                Ok(writer)
            })
            .await?;
            writer.commit(size, Some(digest.clone()), HashMap::new()).await.map(drop)
        }
        Err(error) => Err(error),
    };
    match done {
        Err(error) if error.kind() != Kind::AlreadyExists => Err(error),
        _ => Ok(Descriptor::new(media_type::DOCKER_MANIFEST, digest, size)),
    }
}
