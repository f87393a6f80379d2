//! `-info`: what this runtime is and can do.

use berth_proto::containerd::types::{RuntimeInfo, RuntimeVersion};
use prost_types::Any;

use crate::features::features;

/// containerd's name for the OCI document of a runtime's features.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// The answer to `-info`.
pub(super) fn info() -> RuntimeInfo {
    RuntimeInfo {
        name: "io.containerd.berth.v1".to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
        }),
        options: None,
        features: Some(Any {
            type_url: FEATURES.to_owned(),
            value: features().to_string().into_bytes(),
        }),
        annotations: Default::default(),
    }
}
