//! `state`: where a container stands.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use berth_types::{Result, ResultExt};
use serde::Serialize;

use crate::record::{Found, Records, Status};

/// Prints the state of a container.
#[derive(Debug, clap::Args)]
pub(crate) struct State {
    /// The container's id
    id: String,
}

/// The specification's state, with what runc adds to it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report<'a> {
    oci_version: &'a str,
    pub(crate) id: &'a str,
    pub(crate) pid: i32,
    pub(crate) status: &'static str,
    pub(crate) bundle: &'a Path,
    rootfs: &'a Path,
    pub(crate) created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    /// Only root creates containers.
    pub(crate) owner: &'static str,
}

impl<'a> Report<'a> {
    /// The report on `found`.
    ///
    /// # Errors
    /// As [`Found::status`].
    pub(crate) fn new(found: &'a Found) -> Result<Self> {
        let (record, status) = (&found.record, found.status()?);
        Ok(Self {
            oci_version: &record.oci_version,
            id: &record.id,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status: status.word(),
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner: "root",
        })
    }
}

impl State {
    /// # Errors
    /// NotFound without such a container.
    pub(crate) fn run(self, records: &Records) -> Result<()> {
        let found = records.find(&self.id)?;
        print(&Report::new(&found)?)
    }
}

/// Prints a document.
///
/// # Errors
/// When standard output can't be written.
pub(crate) fn print(document: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    writeln!(std::io::stdout(), "{text}").context(|| "print the answer")
}
