//! A layer into a snapshot.

use std::os::fd::{AsFd, OwnedFd};

use berth_archive::{Decompress, Lowers, Options, Whiteouts, settle};
use berth_metadata::Scope;
use berth_proto::containerd::services::diff::v1::ApplyRequest;
use berth_proto::containerd::types::Descriptor;
use berth_types::image::media_type;
use berth_types::{Error, Result, ResultExt};

use super::super::backend::Backend;
use super::processors::{self, Output};
use super::tree::{self, Tree};

/// Applies a layer's blob to the tree of the mounts; returns what the uncompressed layer is.
///
/// # Errors
/// `InvalidArgument` for a malformed layer and for mounts that nothing can be written to,
/// `Unimplemented` for media types and mounts that are not known, `NotFound` without the blob.
pub(super) async fn apply(
    backend: &Backend,
    scope: &Scope,
    request: ApplyRequest,
) -> Result<Descriptor> {
    let ApplyRequest { diff, mounts, sync_fs, .. } = request;
    let layer = diff.unwrap_or_default();
    let stages = processors::chain(&backend.processors, &layer.media_type)?;
    let tree = Tree::of(&mounts)?.unwrap_or_else(Tree::nothing);
    let reader = scope.content().reader(&layer.digest.parse()?)?;
    let write = move || {
        let (stream, running) = processors::start(&stages, reader.file)?;
        let applied = write(stream, &tree, sync_fs);
        // A program that failed is why its output is no layer.
        match (applied, running.finish()) {
            (Ok(applied), Ok(())) => Ok(applied),
            (_, Err(failed)) => Err(failed),
            (Err(error), Ok(())) => Err(error),
        }
    };
    let applied = tokio::task::spawn_blocking(write).await;
    applied
        .map_err(|error| Error::internal(format!("applying died: {error}")))?
        .context(|| format!("apply layer {}", layer.digest))
}

/// Writes the layer to the tree's upper directory.
fn write(stream: Output, tree: &Tree, sync: bool) -> Result<Descriptor> {
    let upper = tree.upper.as_deref().ok_or_else(|| {
        Error::invalid_argument("the mounts are read-only: give those of an active snapshot")
    })?;
    let upper = tree::open(upper)?;
    // Above other layers a removal must hide what is there, alone it has nothing to hide.
    let whiteouts = if tree.lowers.is_empty() { Whiteouts::Remove } else { Whiteouts::Overlay };
    let options = Options { whiteouts, ..Options::default() };
    let stream = Decompress::new(stream)?;
    let applied = berth_archive::apply(stream, upper.as_fd(), &options)?;
    if !tree.lowers.is_empty() {
        let lowers: Vec<OwnedFd> =
            tree.lowers.iter().map(|lower| tree::open(lower)).collect::<Result<_>>()?;
        settle(upper.as_fd(), &Lowers::new(lowers), &applied)?;
    }
    if sync {
        tree::sync(upper)?;
    }
    Ok(Descriptor {
        media_type: media_type::OCI_LAYER.to_owned(),
        digest: applied.diff_id.to_string(),
        size: i64::try_from(applied.size).unwrap_or(i64::MAX),
        ..Descriptor::default()
    })
}
