//! What is written about an image: labels on its blobs, and the record that names it.

use std::collections::{BTreeSet, HashMap};

use berth_metadata::Scope;
use berth_proto::containerd::services::content::v1::Info;
use berth_proto::containerd::services::images::v1::Image;
use berth_proto::containerd::types;
use berth_types::image::Descriptor;
use berth_types::labels::{self, DISTRIBUTION_SOURCE, GC_REF_CONTENT, GC_REF_SNAPSHOT};
use berth_types::{Digest, Error, Kind, Result};

use crate::discard;

/// Prefix: a layer of a manifest.
const KEEPS_LAYER: &str = "containerd.io/gc.ref.content.l";

/// Labels of a blob that its row gets when it is made.
pub(crate) type BlobLabels = HashMap<String, String>;

/// The label that says where a blob came from. As in containerd's, the registry's port is left
/// out.
pub(crate) fn source(domain: &str, path: &str) -> (String, String) {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => domain,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (format!("{DISTRIBUTION_SOURCE}.{host}"), path.to_owned())
}

/// The labels by which an index keeps those of its entries that are there.
pub(crate) fn keeps_entries(entries: &[Digest]) -> BlobLabels {
    let label = |(position, digest): (usize, &Digest)| {
        (format!("{GC_REF_CONTENT}.m.{position}"), digest.to_string())
    };
    entries.iter().enumerate().map(label).collect()
}

/// The labels by which a manifest keeps its config and layers, each with its position.
pub(crate) fn keeps_parts<'a>(
    config: &Digest,
    layers: impl Iterator<Item = (usize, &'a Digest)>,
) -> BlobLabels {
    let config = (format!("{GC_REF_CONTENT}.config"), config.to_string());
    let layers =
        layers.map(|(position, digest)| (format!("{KEEPS_LAYER}.{position}"), digest.to_string()));
    layers.chain([config]).collect()
}

/// The label by which a config keeps the snapshot of its layers.
pub(crate) fn keeps_snapshot(snapshotter: &str, chain_id: &Digest) -> (String, String) {
    (format!("{GC_REF_SNAPSHOT}.{snapshotter}"), chain_id.to_string())
}

/// Sets labels of a blob that it doesn't have yet. Sources are added to those that are there, as
/// long as a label can hold them.
pub(crate) async fn label(scope: &Scope, digest: &Digest, wanted: BlobLabels) -> Result<()> {
    let mut info = scope.content().info(digest)?;
    let mut changed = Vec::new();
    for (key, value) in wanted {
        let old = info.labels.get(&key).map(String::as_str).unwrap_or_default();
        let is_source = key.starts_with(DISTRIBUTION_SOURCE) || key == discard::FROM;
        let new = if is_source { joined(old, &value) } else { value };
        let fits = !is_source || labels::validate(&key, &new).is_ok();
        if new != old && fits {
            changed.push(format!("labels.{key}"));
            info.labels.insert(key, new);
        }
    }
    if !changed.is_empty() {
        let with = Info { digest: digest.to_string(), labels: info.labels, ..Default::default() };
        scope.content().update(with, changed).await?;
    }
    Ok(())
}

/// Whether a manifest with `labels` keeps layers.
pub(crate) fn keeps_layers(labels: &BlobLabels) -> bool {
    labels.keys().any(|key| key.starts_with(KEEPS_LAYER))
}

/// Takes the labels by which a manifest keeps its layers away.
pub(crate) async fn let_go_of_layers(scope: &Scope, manifest: &Digest) -> Result<()> {
    let mut info = scope.content().info(manifest)?;
    let keeps = |key: &&String| key.starts_with(KEEPS_LAYER);
    let kept: Vec<_> = info.labels.keys().filter(keeps).cloned().collect();
    if kept.is_empty() {
        return Ok(());
    }
    kept.iter().for_each(|key| drop(info.labels.remove(key)));
    let paths = kept.into_iter().map(|key| format!("labels.{key}")).collect();
    let with = Info { digest: manifest.to_string(), labels: info.labels, ..Default::default() };
    scope.content().update(with, paths).await.map(drop)
}

/// A comma-separated list, sorted as containerd's, with `path` in it.
fn joined(list: &str, path: &str) -> String {
    let known = list.split(',').filter(|known| !known.is_empty());
    let all: BTreeSet<_> = known.chain([path]).collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

/// Names `target`: makes the image, or lets the one of this name point there.
pub(crate) async fn name(scope: &Scope, name: &str, target: &Descriptor) -> Result<Image> {
    let size = i64::try_from(target.size)
        .map_err(|_| Error::invalid_argument(format!("image {name} is larger than any disk")))?;
    let image = Image {
        name: name.to_owned(),
        target: Some(types::Descriptor {
            media_type: target.media_type.clone(),
            digest: target.digest.to_string(),
            size,
            annotations: target.annotations.clone().into_iter().collect(),
        }),
        ..Default::default()
    };
    match scope.images().create(image.clone()).await {
        Err(error) if error.kind() == Kind::AlreadyExists => {
            scope.images().update(image, vec!["target".to_owned()]).await
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_host_and_a_path() {
        let key = |domain| source(domain, "a").0.split_off(DISTRIBUTION_SOURCE.len());
        assert_eq!(key("docker.io"), ".docker.io");
        assert_eq!(key("127.0.0.1:5000"), ".127.0.0.1");
        assert_eq!(key("[::1]:5000"), ".::1");
        assert_eq!(key("[fe80::1]"), ".fe80::1");
    }

    #[test]
    fn sources_add_up() {
        assert_eq!(joined("", "a/b"), "a/b");
        assert_eq!(joined("a/b", "a/b"), "a/b");
        assert_eq!(joined("a/b", "a"), "a,a/b");
    }
}
