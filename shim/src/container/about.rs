//! What is known of a container for all of its life.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_types::spec::{Hooks, Spec};
use berth_types::{Result, id};

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
    /// Checks the id and the hooks.
    pub(super) fn check(id: &str, bundle: &Path, spec: &Spec) -> Result<Self> {
        id::validate("container", id)?;
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
