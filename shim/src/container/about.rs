//! What is known of a container for all of its life.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_types::spec::{Hooks, Spec};
use berth_types::{Error, Result, id};

use super::hooks;

/// What its spec and its creator say, as far as it matters after its creation too.
#[derive(Debug)]
pub(super) struct About {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) oci_version: String,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) hooks: Hooks,
}

impl About {
    /// Checks the id, the version and the hooks.
    pub(super) fn check(id: &str, bundle: &Path, spec: &Spec) -> Result<Self> {
        id::validate_for_runtime("container", id)?;
        check_version(&spec.oci_version)?;
        let hooks = spec.hooks.clone().unwrap_or_default();
        hooks::check(&hooks)?;
        Ok(Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            oci_version: spec.oci_version.clone(),
            annotations: spec.annotations.clone(),
            hooks,
        })
    }
}

/// Checks `ociVersion`: what comes after the first number changes nothing of what was there before.
fn check_version(version: &str) -> Result<()> {
    match version.split('.').next() {
        // Clients leave it out.
        Some("" | "0" | "1") => Ok(()),
        _ => Err(Error::invalid_argument(format!(
            "ociVersion {version:?} is no version of the specification that is known here: 1.0.0 \
             to 1.3.0 are"
        ))),
    }
}
