//! Which image a target stands for on a platform: the way through indexes to a manifest.

use std::sync::Arc;

use berth_types::image::{Descriptor, Document, ImageConfig, Manifest, media_type};
use berth_types::{Digest, Error, Platform, Result, ResultExt};

use crate::resolved::Resolved;

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 3;
/// How many documents are looked at for one choice. Usual images take two; what takes many has
/// entries that don't name their platform.
const MAX_DOCUMENTS: usize = 32;

/// Where documents come from.
pub(crate) trait Documents: Sync {
    /// The bytes of a manifest, index or config, of which size and digest are right.
    fn document(&self, described: &Descriptor) -> impl Future<Output = Result<Vec<u8>>> + Send;
}

/// What was chosen.
pub(crate) struct Choice {
    pub(crate) image: Resolved,
    /// The indexes on the way, outermost first.
    pub(crate) way: Vec<Step>,
}

/// An index on the way, and what it lists.
#[derive(Clone)]
pub(crate) struct Step {
    pub(crate) index: Digest,
    pub(crate) entries: Arc<[Digest]>,
}

/// Chooses the image that runs best on `platform`.
///
/// # Errors
/// `NotFound`, naming the platforms that there are; `InvalidArgument` for malformed documents.
pub(crate) async fn choose(
    documents: &impl Documents,
    target: &Descriptor,
    platform: &Platform,
) -> Result<Choice> {
    // The best is on top.
    let mut candidates = vec![(target.clone(), Vec::<Step>::new())];
    let mut seen = Vec::new();
    let mut looked_at = 0;
    while let Some((described, way)) = candidates.pop() {
        looked_at += 1;
        if looked_at > MAX_DOCUMENTS || way.len() > MAX_DEPTH {
            return Err(Error::invalid_argument(format!(
                "image index {} is nested too deeply or doesn't name the platforms of its entries",
                target.digest
            )));
        }
        let bytes = documents.document(&described).await?;
        let document = Document::parse(&described.media_type, &bytes)
            .context(|| format!("image {}", described.digest))?;
        match document {
            Document::Index(index) => {
                seen.extend(index.platforms());
                let entries = index.manifests.iter().map(|entry| entry.digest.clone()).collect();
                let way = [way, vec![Step { index: described.digest, entries }]].concat();
                let best_last = index.candidates(platform).into_iter().rev();
                candidates.extend(best_last.map(|entry| (entry.clone(), way.clone())));
            }
            Document::Manifest(manifest) => {
                match open(documents, &described, *manifest, platform).await? {
                    Ok(image) => return Ok(Choice { image, way }),
                    Err(other) => seen.push(other),
                }
            }
        }
    }
    seen.sort();
    seen.dedup();
    Err(Error::not_found(format!(
        "there is no image for {platform}; there is {}",
        if seen.is_empty() { "none at all".to_owned() } else { seen.join(", ") }
    )))
}

/// The image of a manifest; the inner error says what it is for instead.
async fn open(
    documents: &impl Documents,
    described: &Descriptor,
    manifest: Manifest,
    platform: &Platform,
) -> Result<Result<Resolved, String>> {
    let config = &manifest.config;
    if !media_type::is_config(&config.media_type) {
        let kind = manifest.artifact_type.as_ref().unwrap_or(&config.media_type);
        return Ok(Err(format!("an artifact of type {kind}")));
    }
    let bytes = documents.document(config).await?;
    let image = ImageConfig::parse(&bytes).context(|| format!("image {}", described.digest))?;
    // What an index says of its entry counts: configs often leave out the variant.
    let its_own = image.platform();
    let runs = described.platform.as_ref().unwrap_or(&its_own);
    if platform.rank(runs).is_none() {
        return Ok(Err(its_own.to_string()));
    }
    Resolved::new(described, manifest, image).map(Ok)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use berth_types::Kind;
    use serde_json::{Value, json};

    use super::*;

    /// Documents in memory.
    #[derive(Default)]
    struct Memory(HashMap<Digest, Vec<u8>>);

    impl Documents for Memory {
        async fn document(&self, described: &Descriptor) -> Result<Vec<u8>> {
            let bytes = self.0.get(&described.digest).cloned();
            bytes.ok_or_else(|| Error::not_found(described.digest.to_string()))
        }
    }

    impl Memory {
        fn put(&mut self, media_type: &str, document: &Value) -> Descriptor {
            let bytes = serde_json::to_vec(document).unwrap();
            let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
            self.0.insert(descriptor.digest.clone(), bytes);
            descriptor
        }

        fn image(&mut self, architecture: &str) -> Descriptor {
            let config = json!({"architecture": architecture, "os": "linux"});
            let config = self.put(media_type::OCI_CONFIG, &config);
            let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
            self.put(media_type::OCI_MANIFEST, &manifest)
        }

        fn index(&mut self, entries: &[Descriptor]) -> Descriptor {
            let index = json!({"schemaVersion": 2, "manifests": entries});
            self.put(media_type::OCI_INDEX, &index)
        }
    }

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn finds_the_manifest_through_nested_indexes_and_without_platforms() {
        let mut memory = Memory::default();
        let (arm, amd) = (memory.image("arm64"), memory.image("amd64"));
        let inner = memory.index(&[arm.clone(), amd.clone()]);
        let outer = memory.index(std::slice::from_ref(&inner));
        let choice = choose(&memory, &outer, &platform("linux/amd64")).await.unwrap();
        assert_eq!(choice.image.manifest, amd);
        let way: Vec<_> = choice.way.iter().map(|step| (&step.index, &*step.entries)).collect();
        let outer_lists = [inner.digest.clone()];
        let inner_lists = [arm.digest, amd.digest];
        assert_eq!(way, [(&outer.digest, &outer_lists[..]), (&inner.digest, &inner_lists[..])]);
    }

    #[tokio::test]
    async fn names_the_platforms_that_there_are() {
        let mut memory = Memory::default();
        let mut arm = memory.image("arm64");
        let single = choose(&memory, &arm, &platform("linux/s390x")).await.err().unwrap();
        assert_eq!(single.kind(), Kind::NotFound);
        assert!(single.message().contains("linux/arm64"), "{single}");
        arm.platform = Some(platform("linux/arm64"));
        let index = memory.index(&[arm]);
        let error = choose(&memory, &index, &platform("linux/amd64")).await.err().unwrap();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.message().contains("linux/arm64"), "{error}");
    }

    #[tokio::test]
    async fn nesting_and_searching_have_an_end() {
        let mut memory = Memory::default();
        let image = memory.image("amd64");
        let mut deep = memory.index(&[image]);
        for _ in 0..MAX_DEPTH {
            deep = memory.index(&[deep]);
        }
        let error = choose(&memory, &deep, &platform("linux/amd64")).await.err().unwrap();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        let many: Vec<_> = (0..100).map(|n| memory.image(&format!("made-up-{n}"))).collect();
        let wide = memory.index(&many);
        let error = choose(&memory, &wide, &platform("linux/amd64")).await.err().unwrap();
        assert_eq!(error.kind(), Kind::InvalidArgument);
    }

    #[tokio::test]
    async fn a_config_with_other_layers_than_its_manifest_is_refused() {
        let mut memory = Memory::default();
        let config = json!({"os": "linux", "rootfs": {"diff_ids": [Digest::of(b"a")]}});
        let config = memory.put(media_type::OCI_CONFIG, &config);
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
        let manifest = memory.put(media_type::OCI_MANIFEST, &manifest);
        let error = choose(&memory, &manifest, &Platform::host()).await.err().unwrap();
        assert_eq!(error.kind(), Kind::InvalidArgument);
    }
}
