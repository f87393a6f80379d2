//! Which containers share a shim: those of one group, as their specs' annotations name it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Error, Result};

/// The annotations that name a group, the first one that is there counts: containerd's own for its
/// shims, and that of Kubernetes' pods.
const NAMES: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// What is looked at of a spec.
#[derive(Default, Deserialize)]
struct Annotated {
    #[serde(default, deserialize_with = "super::nullable")]
    annotations: BTreeMap<String, String>,
}

/// The group of containers that a spec, JSON, puts its container in. All of a group have one shim.
///
/// # Errors
/// InvalidArgument when the spec can't be read.
pub fn group(spec: &[u8]) -> Result<Option<String>> {
    let mut spec: Annotated = serde_json::from_slice(spec)
        .map_err(|error| Error::invalid_argument(format!("config.json: {error}")))?;
    let mut named = NAMES.into_iter().filter_map(|name| spec.annotations.remove(name));
    Ok(named.find(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn groups_are_named_by_annotations() {
        let group = |spec: &str| group(spec.as_bytes());
        for alone in
            [r#"{"ociVersion":"1.0.2"}"#, r#"{"annotations":null}"#, r#"{"annotations":{"a":"b"}}"#]
        {
            assert_eq!(group(alone).unwrap(), None);
        }
        let pod = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#;
        assert_eq!(group(pod).unwrap().as_deref(), Some("pod"));
        let both = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod",
                      "io.containerd.runc.v2.group":"group"}}"#;
        assert_eq!(group(both).unwrap().as_deref(), Some("group"));
        assert_eq!(group("{").unwrap_err().kind(), Kind::InvalidArgument);
    }
}
