//! Who uses what: the blobs and layers of all images, as their documents name them, and what images
//! lack.

use std::collections::{BTreeSet, HashMap};

use berth_metadata::Scope;
use berth_pull::Layer;
use berth_types::image::{Descriptor, Document, ImageConfig, MAX_SIZE, Manifest};
use berth_types::labels::GC_REF_SNAPSHOT;
use berth_types::{Digest, Platform, Result};

use crate::images::target;

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 3;

/// An image: its namespace and its name.
pub(super) type Image = (String, String);

/// What the images of all namespaces consist of.
#[derive(Default)]
pub(super) struct Uses {
    /// The names of all images.
    pub(super) names: Vec<String>,
    blobs: HashMap<Digest, Use>,
    layers: HashMap<(String, String), LayerUse>,
    /// What images lack and should have.
    pub(super) lacks: Vec<Lack>,
}

/// How a blob is used.
pub(super) struct Use {
    /// As a document describes it.
    pub(super) described: Descriptor,
    pub(super) images: BTreeSet<Image>,
}

/// How a layer is used.
pub(super) struct LayerUse {
    /// The layer, after those below it.
    pub(super) chain: Vec<Layer>,
    pub(super) images: BTreeSet<Image>,
}

/// A blob without a record in a namespace, whose image needs it.
#[derive(Clone)]
pub(super) struct Lack {
    pub(super) image: Image,
    pub(super) target: Descriptor,
    pub(super) platform: Platform,
    pub(super) digest: Digest,
}

impl Uses {
    /// Reads the images of `scope` too.
    ///
    /// # Errors
    /// Those of the database. A document that can't be read names nothing: that it is damaged is
    /// found otherwise.
    pub(super) fn read(&mut self, scope: &Scope) -> Result<()> {
        for record in scope.images().list(&[])? {
            self.names.push(record.name.clone());
            let Ok(target) = target(&record) else { continue };
            let image = (scope.namespace().to_owned(), record.name);
            Walk { uses: self, scope, image: &image, target: &target }.document(&target, 0)?;
        }
        Ok(())
    }

    pub(super) fn blob(&self, digest: &Digest) -> Option<&Use> {
        self.blobs.get(digest)
    }

    /// The use of the layer that is the snapshot `key` of a namespace.
    pub(super) fn layer(&self, namespace: &str, key: &str) -> Option<&LayerUse> {
        self.layers.get(&(namespace.to_owned(), key.to_owned()))
    }
}

/// The way through one image.
struct Walk<'a> {
    uses: &'a mut Uses,
    scope: &'a Scope,
    image: &'a Image,
    target: &'a Descriptor,
}

impl Walk<'_> {
    /// Notes a manifest or index, and what it leads to.
    fn document(&mut self, described: &Descriptor, depth: usize) -> Result<()> {
        self.note(described);
        if !self.has(&described.digest) {
            return self.miss(None, &described.digest, &Platform::host());
        }
        let Some(bytes) = read(self.scope, &described.digest) else { return Ok(()) };
        match Document::parse(&described.media_type, &bytes) {
            Ok(Document::Manifest(manifest)) => self.manifest(described, &manifest, depth),
            Ok(Document::Index(index)) if depth < MAX_DEPTH => {
                let present = index.manifests.iter().filter(|entry| self.has(&entry.digest));
                let present: Vec<_> = present.cloned().collect();
                // What is for other platforms need not be here; something has to.
                let wanted = index.candidates(&Platform::host()).first().copied().cloned();
                let all = if present.is_empty() { wanted.into_iter().collect() } else { present };
                all.iter().try_for_each(|entry| self.document(entry, depth + 1))
            }
            _ => Ok(()),
        }
    }

    fn manifest(
        &mut self,
        described: &Descriptor,
        manifest: &Manifest,
        depth: usize,
    ) -> Result<()> {
        let config = read(self.scope, &manifest.config.digest);
        let config = config.and_then(|bytes| ImageConfig::parse(&bytes).ok());
        let platform = described.platform.clone().or(config.as_ref().map(ImageConfig::platform));
        let platform = platform.unwrap_or_else(Platform::host);
        let is_whole = depth == 0 || self.was_unpacked(&manifest.config.digest, &platform);
        for part in manifest.layers.iter().chain([&manifest.config]) {
            self.note(part);
            if is_whole && !self.has(&part.digest) {
                self.miss(Some(&described.digest), &part.digest, &platform)?;
            }
        }
        if let Some(config) = config {
            self.layers(manifest, &config);
        }
        Ok(())
    }

    /// Whether an image of an index was here as a whole. Otherwise it may be on its way, or is what
    /// another client has left of it.
    fn was_unpacked(&self, config: &Digest, platform: &Platform) -> bool {
        match self.scope.content().info(config) {
            Ok(info) => info.labels.keys().any(|label| label.starts_with(GC_REF_SNAPSHOT)),
            Err(_) => Platform::host().rank(platform).is_some(),
        }
    }

    fn layers(&mut self, manifest: &Manifest, config: &ImageConfig) {
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return;
        }
        let mut chain = Vec::new();
        let named = diff_ids.iter().cloned().zip(config.rootfs.chain_ids());
        for (blob, (diff_id, chain_id)) in manifest.layers.iter().cloned().zip(named) {
            let key = (self.image.0.clone(), chain_id.to_string());
            chain.push(Layer { blob, diff_id, chain_id });
            let entry = self.uses.layers.entry(key);
            let layer =
                entry.or_insert_with(|| LayerUse { chain: chain.clone(), images: BTreeSet::new() });
            layer.images.insert(self.image.clone());
        }
    }

    fn note(&mut self, described: &Descriptor) {
        let entry = self.uses.blobs.entry(described.digest.clone());
        let noted =
            entry.or_insert_with(|| Use { described: described.clone(), images: BTreeSet::new() });
        noted.images.insert(self.image.clone());
    }

    fn has(&self, digest: &Digest) -> bool {
        self.scope.content().info(digest).is_ok()
    }

    /// Notes what is missing, unless image or record have changed meanwhile.
    fn miss(
        &mut self,
        holder: Option<&Digest>,
        digest: &Digest,
        platform: &Platform,
    ) -> Result<()> {
        if self.scope.lacks(&self.image.1, &self.target.digest, holder, digest)? {
            self.uses.lacks.push(Lack {
                image: self.image.clone(),
                target: self.target.clone(),
                platform: platform.clone(),
                digest: digest.clone(),
            });
        }
        Ok(())
    }
}

/// The bytes of a document, if they are whole.
fn read(scope: &Scope, digest: &Digest) -> Option<Vec<u8>> {
    let reader = scope.content().reader(digest).ok()?;
    if reader.size > MAX_SIZE {
        return None;
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut &reader.file, &mut bytes).ok()?;
    let mut hasher = berth_types::Hasher::new(digest.algorithm());
    hasher.update(&bytes);
    (hasher.finish() == *digest).then_some(bytes)
}
