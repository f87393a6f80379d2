//! Blobs of layers that go once they are unpacked, and what is noted so that they can come back.
//!
//! An image whose layers were discarded is kept as any other, but its manifest no longer refers to
//! the blobs of its layers, so that they are garbage unless something else does. On the manifest is
//! noted where they came from, and which encoder makes them of the archives that their images hold.

use berth_archive::Encoding;
use berth_erofs::Archive;
use berth_metadata::Scope;
use berth_types::image::Descriptor;
use berth_types::labels::DISTRIBUTION_SOURCE;
use berth_types::{Digest, Error, Kind, Result};
use futures_util::future::join_all;

use crate::blocking;
use crate::layer::closed;
use crate::record::{self, BlobLabels};
use crate::resolved::{Layer, Resolved};
use crate::session::Session;

/// On a manifest: the repositories that discarded layers came from, with their registries' ports,
/// comma-separated.
pub(crate) const FROM: &str = "berth.io/discarded.from";

/// Prefix, with the digest of a layer's blob, on manifests: the [`Encoding`] of it.
const ENCODING: &str = "berth.io/discarded.encoding";

impl Session {
    /// Notes how the layers of an image that was unpacked can come back, and lets go of them.
    pub(crate) async fn discard(&self, image: &Resolved) -> Result<()> {
        let found = image.layers.iter().map(|layer| self.encoding(layer));
        let mut notes: BlobLabels = join_all(found).await.into_iter().flatten().collect();
        if let Some(from) = &self.repository {
            notes.insert(FROM.to_owned(), format!("{}/{}", from.domain(), from.path()));
        }
        record::label(&self.scope, &image.manifest.digest, notes).await?;
        record::let_go_of_layers(&self.scope, &image.manifest.digest).await
    }

    /// The label that says how the blob of a layer can be made again. A layer for which there is
    /// none can only be fetched again, which is no failure.
    async fn encoding(&self, layer: &Layer) -> Option<(String, String)> {
        let blob = layer.blob.digest.clone();
        if blob == layer.diff_id || !matches!(archive(&self.scope, layer).await, Ok(Some(_))) {
            return None;
        }
        let key = key(&blob);
        if !is_there(&self.scope, &layer.blob).ok()? {
            // Another image may have come with it.
            let noting = self.scope.content().list(&[format!("labels.{key:?}")]).ok()?;
            let noted = noting.into_iter().next()?.labels.remove(&key)?;
            return Some((key, noted));
        }
        let scope = self.scope.clone();
        let find = async {
            let _turn = self.puller.unpacks().acquire().await.map_err(closed)?;
            blocking(move || Encoding::find(scope.content().reader(&blob)?.file)).await
        };
        match find.await {
            Ok(encoding) => Some((key, encoding?.to_string())),
            Err(error) => {
                tracing::debug!(%error, digest = %layer.blob.digest, "not tried to compress again");
                None
            }
        }
    }
}

/// What is noted of a layer: how its blob is made of its archive, if that is known.
pub(crate) fn encoding(labels: &BlobLabels, layer: &Layer) -> Option<Encoding> {
    if layer.blob.digest == layer.diff_id {
        return Some(Encoding::None);
    }
    labels.get(&key(&layer.blob.digest))?.parse().ok()
}

fn key(blob: &Digest) -> String {
    format!("{ENCODING}.{blob}")
}

/// The repositories that the layers of a manifest with `labels` may be fetched from. containerd's
/// labels leave the ports of registries out, so ours come first.
pub(crate) fn sources(labels: &BlobLabels) -> Vec<String> {
    let listed = |list: &String| list.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut sources = labels.get(FROM).map(listed).unwrap_or_default();
    let known: Vec<_> = sources
        .iter()
        .filter_map(|source| source.split_once('/'))
        .map(|(domain, path)| record::source(domain, path))
        .collect();
    for (key, paths) in labels {
        let Some(host) = key.strip_prefix(DISTRIBUTION_SOURCE).and_then(|k| k.strip_prefix('.'))
        else {
            continue;
        };
        for path in listed(paths) {
            if !known.contains(&(key.clone(), path.clone())) {
                sources.push(format!("{host}/{path}"));
            }
        }
    }
    sources
}

/// The archive of a layer, from its image, if some snapshotter has one. The lease keeps the image.
pub(crate) async fn archive(scope: &Scope, layer: &Layer) -> Result<Option<Archive>> {
    let mut failure = None;
    for name in scope.metadata().snapshotters() {
        match archive_at(scope, name, layer).await {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(None), Err)
}

async fn archive_at(scope: &Scope, snapshotter: &str, layer: &Layer) -> Result<Option<Archive>> {
    let snapshots = scope.snapshots(snapshotter)?;
    let key = layer.chain_id.as_str();
    // Looked for first: a lease would keep what isn't there.
    snapshots.stat(key).await?;
    snapshots.adopt(key).await?;
    let Some(image) = snapshots.layer_image(key).await? else { return Ok(None) };
    let archive = blocking(move || Archive::open(image)).await?;
    match archive {
        Some(archive) if *archive.diff_id() != layer.diff_id => Err(Error::data_loss(format!(
            "the image of layer {} is damaged: it holds {}",
            layer.diff_id,
            archive.diff_id()
        ))),
        archive => Ok(archive),
    }
}

/// Whether the namespace has the blob.
pub(crate) fn is_there(scope: &Scope, blob: &Descriptor) -> Result<bool> {
    match scope.content().info(&blob.digest) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_ports_where_they_are_known() {
        let labels = |all: &[(&str, &str)]| {
            all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BlobLabels>()
        };
        let theirs = "containerd.io/distribution.source.localhost";
        assert_eq!(sources(&labels(&[(theirs, "a,b/c")])), ["localhost/a", "localhost/b/c"]);
        let both = labels(&[(theirs, "a,b/c"), (FROM, "localhost:5000/b/c")]);
        assert_eq!(sources(&both), ["localhost:5000/b/c", "localhost/a"]);
        assert!(sources(&labels(&[])).is_empty());
    }
}
