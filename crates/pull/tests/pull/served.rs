//! An image on a server that notes every request and can be told to misbehave.

use std::collections::HashMap;

use berth_types::Digest;

use crate::hostile::{Reply, Request};
use crate::image::TestImage;

/// The parts of an image by the ends of their paths.
pub(crate) fn parts(image: &TestImage) -> HashMap<String, Vec<u8>> {
    let blobs = image.layers.iter().map(|layer| layer.blob.clone()).chain([image.config.clone()]);
    let blobs = blobs.map(|blob| (format!("blobs/{}", Digest::of(&blob)), blob));
    let manifest = format!("manifests/{}", image.descriptor().digest);
    let named = [manifest, "manifests/v1".to_owned()].map(|name| (name, image.manifest.clone()));
    blobs.chain(named).collect()
}

pub(crate) fn answer(parts: &HashMap<String, Vec<u8>>, request: &Request) -> Reply {
    let rest = request.path.strip_prefix("/v2/a/").unwrap_or_default();
    let Some(bytes) = parts.get(rest) else { return Reply::new(404, &[], b"") };
    let kind = ("content-type", "application/vnd.oci.image.manifest.v1+json");
    match request.range_start() {
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, &[kind, ("content-range", &range)], &bytes[start..])
        }
        None => {
            let digest = Digest::of(bytes).to_string();
            let length = bytes.len().to_string();
            let headers = [kind, ("docker-content-digest", &digest), ("content-length", &length)];
            Reply::new(200, &headers, if request.method == "HEAD" { b"" } else { bytes })
        }
    }
}
