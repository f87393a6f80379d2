//! Which containers share a shim: those of one group, as their specs' annotations name it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use berth_types::{Error, Result, ResultExt};
use serde::Deserialize;

/// The annotations that name a group, the first one that is there counts: containerd's own for its
/// shims, and that of Kubernetes' pods.
const NAMES: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// What is looked at of a spec.
#[derive(Default, Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The group that the container in `bundle` belongs to. Without a spec there is none.
///
/// # Errors
/// InvalidArgument when the spec can't be read.
pub(super) fn of(bundle: &Path) -> Result<Option<String>> {
    let path = bundle.join("config.json");
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.context(|| format!("read {}", path.display()))?,
    };
    let spec: Annotated = serde_json::from_reader(BufReader::new(file))
        .map_err(|error| Error::invalid_argument(format!("{}: {error}", path.display())))?;
    let mut named = NAMES.into_iter().filter_map(|name| spec.annotations.get(name));
    Ok(named.find(|name| !name.is_empty()).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    fn group(spec: &str) -> Result<Option<String>> {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join("config.json"), spec).unwrap();
        of(bundle.path())
    }

    #[test]
    fn groups_are_named_by_annotations() {
        assert_eq!(of(Path::new("/nonexistent")).unwrap(), None);
        assert_eq!(group(r#"{"ociVersion":"1.0.2"}"#).unwrap(), None);
        let pod = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#;
        assert_eq!(group(pod).unwrap().as_deref(), Some("pod"));
        let both = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod",
                      "io.containerd.runc.v2.group":"group"}}"#;
        assert_eq!(group(both).unwrap().as_deref(), Some("group"));
        assert_eq!(group("{").unwrap_err().kind(), Kind::InvalidArgument);
    }
}
