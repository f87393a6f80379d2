//! An image as its documents describe it, chosen for a platform.

use std::io::Read;

use berth_metadata::Scope;
use berth_types::image::{Descriptor, Document, ImageConfig, MAX_SIZE, Manifest, media_type};
use berth_types::{Digest, Error, Kind, Platform, Result, ResultExt};

use crate::choice::{Documents, choose};

/// One image for one platform.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Its manifest.
    pub manifest: Descriptor,
    /// Its configuration's blob, whose digest is Docker's image id.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// Its configuration.
    pub image: ImageConfig,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The blob.
    pub blob: Descriptor,
    /// The digest of the uncompressed blob.
    pub diff_id: Digest,
    /// The name of the tree that this layer and those below it make: the key of its snapshot.
    pub chain_id: Digest,
}

impl Resolved {
    /// The key of the snapshot that has all layers; `None` for an image without layers.
    pub fn chain_id(&self) -> Option<&Digest> {
        self.layers.last().map(|layer| &layer.chain_id)
    }

    pub(crate) fn new(
        described: &Descriptor,
        manifest: Manifest,
        image: ImageConfig,
    ) -> Result<Self> {
        let diff_ids = &image.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Error::invalid_argument(format!(
                "image manifest {} has {} layers, but its config has {}",
                described.digest,
                manifest.layers.len(),
                diff_ids.len()
            )));
        }
        if let Some(layer) = manifest.layers.iter().find(|l| !media_type::is_layer(&l.media_type)) {
            return Err(Error::unimplemented(format!(
                "layer {} has media type {:?}, which can't be unpacked",
                layer.digest, layer.media_type
            )));
        }
        let names = diff_ids.iter().cloned().zip(image.rootfs.chain_ids());
        let layers = manifest
            .layers
            .into_iter()
            .zip(names)
            .map(|(blob, (diff_id, chain_id))| Layer { blob, diff_id, chain_id })
            .collect();
        Ok(Self { manifest: described.clone(), config: manifest.config, layers, image })
    }
}

/// Reads the image at `target` from content that is there. Blocks for the short time that reading
/// three small files takes.
///
/// # Errors
/// [`Kind::NotFound`](berth_types::Kind::NotFound) when content is missing or there is nothing for
/// `platform`; [`Kind::InvalidArgument`](berth_types::Kind::InvalidArgument) when the documents
/// are malformed.
pub async fn read(scope: &Scope, target: &Descriptor, platform: &Platform) -> Result<Resolved> {
    Ok(choose(&Stored(scope), target, platform).await?.image)
}

/// Reads what is there of the image at `target`: for `platform`, or else for the first other one
/// that an index names and whose documents are there.
///
/// # Errors
/// As for [`read`].
pub async fn read_present(
    scope: &Scope,
    target: &Descriptor,
    platform: &Platform,
) -> Result<Resolved> {
    let missing = match read(scope, target, platform).await {
        Err(error) if error.kind() == Kind::NotFound => error,
        found => return found,
    };
    let bytes = read_small(scope, &target.digest)?;
    let manifests = match Document::parse(&target.media_type, &bytes)? {
        Document::Index(index) => index.manifests,
        Document::Manifest(_) => vec![target.clone()],
    };
    for manifest in manifests {
        if let Ok(own) = own_platform(scope, &manifest)
            && let Ok(found) = read(scope, &manifest, &own).await
        {
            return Ok(found);
        }
    }
    Err(missing)
}

/// The platform of an image whose documents are there.
fn own_platform(scope: &Scope, described: &Descriptor) -> Result<Platform> {
    if let Some(platform) = &described.platform {
        return Ok(platform.clone());
    }
    match Document::parse(&described.media_type, &read_small(scope, &described.digest)?)? {
        Document::Manifest(manifest) => {
            let config = read_small(scope, &manifest.config.digest)?;
            Ok(ImageConfig::parse(&config)?.platform())
        }
        Document::Index(_) => Err(Error::not_found("an index is for no platform")),
    }
}

/// Documents in the content store.
struct Stored<'a>(&'a Scope);

impl Documents for Stored<'_> {
    async fn document(&self, described: &Descriptor) -> Result<Vec<u8>> {
        read_small(self.0, &described.digest)
    }
}

/// A blob that is a document.
pub(crate) fn read_small(scope: &Scope, digest: &Digest) -> Result<Vec<u8>> {
    let reader = scope.content().reader(digest)?;
    if reader.size > MAX_SIZE {
        return Err(Error::invalid_argument(format!(
            "image document {digest} has {} bytes, the most is {MAX_SIZE}",
            reader.size
        )));
    }
    let mut bytes = Vec::new();
    let mut file = reader.file;
    file.read_to_end(&mut bytes).context(|| format!("read content {digest}"))?;
    Ok(bytes)
}
