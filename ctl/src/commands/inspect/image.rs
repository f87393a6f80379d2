//! An image in Docker's layout.

use berth_proto::berth::v1::InspectImageResponse;
use berth_types::Reference;
use serde_json::{Value, json};

use super::parse;
use crate::human::rfc3339;

/// With the manifest beside it.
pub(super) fn document(inspected: InspectImageResponse) -> Value {
    let image = inspected.image.unwrap_or_default();
    let config = parse(&inspected.config);
    let reference = image.name.parse::<Reference>().ok();
    // Another client may name an image as it likes.
    let repository = reference.as_ref().map_or(image.name.clone(), Reference::familiar_name);
    let tag = match &reference {
        Some(reference) if reference.digest().is_some() => None,
        Some(reference) => Some(reference.familiar()),
        None => Some(image.name.clone()),
    };
    json!({
        "Id": image.id,
        "RepoTags": tag.into_iter().collect::<Vec<_>>(),
        "RepoDigests": [format!("{repository}@{}", image.digest)],
        "Created": rfc3339(image.created_at),
        "Author": config["author"].as_str().unwrap_or_default(),
        "Size": image.size,
        "Os": config["os"],
        "Architecture": config["architecture"],
        "Variant": config["variant"].as_str().unwrap_or_default(),
        "Config": config["config"],
        "RootFS": { "Type": "layers", "Layers": config["rootfs"]["diff_ids"] },
        "Manifest": parse(&inspected.manifest),
    })
}
