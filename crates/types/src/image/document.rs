//! Manifests and indexes, and telling which of the two a document is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::descriptor::{Descriptor, null_is_empty};
use super::media_type;
use crate::platform::Platform;
use crate::{Error, Result};

/// The largest manifest, index or config that is read, in bytes: the distribution specification's
/// advice for manifests.
pub const MAX_SIZE: u64 = 4 << 20;

/// The most layers of an image: overlayfs stacks no more (`OVL_MAX_STACK`).
pub const MAX_LAYERS: usize = 500;

/// One image: its config and layers (`manifest.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The media type, which older OCI tools leave out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The kind of artifact, when it isn't an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// Notes, by reverse domain name.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests, usually one for each platform (`image-index.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The media type, which older OCI tools leave out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests, in the order of preference of whoever made the index.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
    /// Notes, by reverse domain name.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// The entries that may run where `wanted` is asked for, best first. Entries that name no
    /// platform come last: their configs tell.
    pub fn candidates(&self, wanted: &Platform) -> Vec<&Descriptor> {
        let mut ranked: Vec<_> = self
            .manifests
            .iter()
            .filter(|entry| entry.artifact_type.is_none())
            .filter_map(|entry| match &entry.platform {
                Some(platform) => wanted.rank(platform).map(|rank| (rank, entry)),
                None => Some((usize::MAX, entry)),
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, entry)| entry).collect()
    }

    /// The entries that are meant by `platforms`: the best for each, or all for none.
    pub fn chosen(&self, platforms: &[Platform]) -> Vec<Descriptor> {
        match platforms {
            [] => self.manifests.clone(),
            some => {
                let best = some.iter().filter_map(|p| self.candidates(p).first().copied());
                best.cloned().collect()
            }
        }
    }

    /// The platforms that are there, for messages. Attestations, whose platform is
    /// `unknown/unknown`, are left out.
    pub fn platforms(&self) -> Vec<String> {
        let known = self.manifests.iter().filter_map(|entry| entry.platform.as_ref());
        known.filter(|p| p.os != "unknown").map(ToString::to_string).collect()
    }
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// A list of them.
    Index(Index),
}

impl Document {
    /// Reads a document whose descriptor or response header says `media_type`; empty when nothing
    /// says it.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) when it is too large, malformed,
    /// both manifest and index (CVE-2021-41190), another type than `media_type` says, or has too
    /// many layers; [`Kind::Unimplemented`](crate::Kind::Unimplemented) for Docker's schema 1.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self> {
        check_size(bytes)?;
        let outline: Outline = serde_json::from_slice(bytes)
            .map_err(|e| Error::invalid_argument(format!("image document is malformed: {e}")))?;
        let is_index = outline.is_index(media_type)?;
        let malformed = |what: &str, e: serde_json::Error| {
            Error::invalid_argument(format!("image {what} is malformed: {e}"))
        };
        if is_index {
            let index = serde_json::from_slice(bytes).map_err(|e| malformed("index", e))?;
            return Ok(Document::Index(index));
        }
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|e| malformed("manifest", e))?;
        if manifest.layers.len() > MAX_LAYERS {
            return Err(Error::invalid_argument(format!(
                "image manifest has {} layers, the most is {MAX_LAYERS}",
                manifest.layers.len()
            )));
        }
        Ok(Document::Manifest(Box::new(manifest)))
    }

    /// The media type: what the document says of itself, else OCI's.
    pub fn media_type(&self) -> &str {
        match self {
            Document::Manifest(m) => m.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST),
            Document::Index(i) => i.media_type.as_deref().unwrap_or(media_type::OCI_INDEX),
        }
    }
}

/// Refuses documents beyond [`MAX_SIZE`].
pub(super) fn check_size(bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 > MAX_SIZE {
        return Err(Error::invalid_argument(format!(
            "image document has {} bytes, the most is {MAX_SIZE}",
            bytes.len()
        )));
    }
    Ok(())
}

/// The fields that tell what a document is, read without their contents.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline<'a> {
    schema_version: Option<u32>,
    media_type: Option<String>,
    #[serde(borrow)]
    manifests: Option<&'a RawValue>,
    #[serde(borrow)]
    config: Option<&'a RawValue>,
    #[serde(borrow)]
    layers: Option<&'a RawValue>,
    #[serde(borrow)]
    fs_layers: Option<&'a RawValue>,
}

impl Outline<'_> {
    /// Decides between index and manifest, and refuses whatever is not clearly one of them.
    fn is_index(&self, media_type: &str) -> Result<bool> {
        let refuse = |why: &str| Err(Error::invalid_argument(format!("image document {why}")));
        let own_type = self.media_type.as_deref().unwrap_or_default();
        if media_type.starts_with(media_type::DOCKER_SCHEMA1_PREFIX)
            || self.fs_layers.is_some()
            || self.schema_version == Some(1)
        {
            return Err(Error::unimplemented(
                "image has a manifest of Docker's schema 1, which is not supported: push it again \
                 with a current tool",
            ));
        }
        let like_index = self.manifests.is_some();
        let like_manifest = self.config.is_some() || self.layers.is_some();
        if like_index == like_manifest {
            return refuse(if like_index {
                "is both manifest and index, which is ambiguous and may be an attack"
            } else {
                "is neither manifest nor index"
            });
        }
        let (right, what): (fn(&str) -> bool, _) = if like_index {
            (media_type::is_index, "an index")
        } else {
            (media_type::is_manifest, "a manifest")
        };
        for said in [own_type, media_type] {
            if !said.is_empty() && !right(said) {
                return refuse(&format!("is {what} but its media type is {said:?}"));
            }
        }
        if !own_type.is_empty() && !media_type.is_empty() && own_type != media_type {
            return refuse(&format!("says media type {own_type:?}, expected {media_type:?}"));
        }
        Ok(like_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, Kind};

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":3}}"#, Digest::of(b"abc"))
    }

    fn manifest(extra: &str) -> String {
        let config = descriptor(media_type::OCI_CONFIG);
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":null{extra}}}"#)
    }

    fn index(entries: &str) -> String {
        format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#)
    }

    fn refusal(media_type: &str, text: &str) -> Error {
        match Document::parse(media_type, text.as_bytes()) {
            Ok(document) => panic!("{document:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn tells_manifest_from_index() {
        let parsed = Document::parse("", manifest("").as_bytes()).unwrap();
        assert_eq!(parsed.media_type(), media_type::OCI_MANIFEST);
        assert!(matches!(parsed, Document::Manifest(m) if m.layers.is_empty()));
        let parsed = Document::parse(media_type::DOCKER_INDEX, index("").as_bytes()).unwrap();
        assert!(matches!(parsed, Document::Index(_)));
    }

    #[test]
    fn refuses_ambiguous_and_mislabelled_documents() {
        let both = manifest(r#","manifests":[]"#);
        let labelled = manifest(&format!(r#","mediaType":"{}""#, media_type::OCI_INDEX));
        let cases = [
            ("", both.as_str()),
            (media_type::OCI_MANIFEST, &both),
            (media_type::OCI_INDEX, &manifest("")),
            (media_type::OCI_MANIFEST, &index("")),
            ("application/json", &manifest("")),
            ("", &labelled),
            ("", "{}"),
            ("", "[]"),
            ("", "{\"schemaVersion\":2,"),
            ("", r#"{"config":{"digest":"sha256:12","size":1}}"#),
        ];
        for (media_type, text) in cases {
            assert_eq!(refusal(media_type, text).kind(), Kind::InvalidArgument, "{text}");
        }
        let schema1 = r#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert_eq!(refusal("", schema1).kind(), Kind::Unimplemented);
    }

    #[test]
    fn refuses_negative_sizes_too_many_layers_and_huge_documents() {
        let negative = manifest("").replace("\"size\":3", "\"size\":-3");
        assert_eq!(refusal("", &negative).kind(), Kind::InvalidArgument);
        let layers = vec![descriptor(media_type::OCI_LAYER); 10_000].join(",");
        let many = manifest("").replace("null", &format!("[{layers}]"));
        assert!(refusal("", &many).message().contains("10000 layers"));
        let huge = manifest(&format!(r#","x":"{}""#, "x".repeat(4 << 20)));
        assert!(refusal("", &huge).message().contains("bytes"));
    }

    #[test]
    fn index_prefers_the_best_platform_and_skips_attestations() {
        let entry = |platform: &str, size: u32| {
            let digest = Digest::of(b"x");
            format!(r#"{{"digest":"{digest}","size":{size},"platform":{platform}}}"#)
        };
        let text = index(
            &[
                entry(r#"{"os":"unknown","architecture":"unknown"}"#, 0),
                entry(r#"{"os":"linux","architecture":"arm","variant":"v6"}"#, 1),
                entry(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#, 2),
                entry("null", 3),
                entry(r#"{"os":"linux","architecture":"amd64"}"#, 4),
            ]
            .join(","),
        );
        let Document::Index(index) = Document::parse("", text.as_bytes()).unwrap() else {
            panic!("an index")
        };
        let sizes = |platform: &str| {
            let wanted = platform.parse().unwrap();
            index.candidates(&wanted).iter().map(|d| d.size).collect::<Vec<_>>()
        };
        assert_eq!(sizes("linux/arm/v7"), [2, 1, 3]);
        assert_eq!(sizes("linux/amd64"), [4, 3]);
        assert_eq!(sizes("linux/s390x"), [3]);
        assert_eq!(index.platforms(), ["linux/arm/v6", "linux/arm/v7", "linux/amd64"]);
    }
}
