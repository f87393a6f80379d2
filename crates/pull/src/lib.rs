//! Images into the stores: pulled from a registry, unpacked from content that is there, imported
//! from an archive; and out of them, pushed to a registry.
//!
//! # The pipeline
//! ```text
//!            registry ──bytes──► channel ──► one thread per layer
//!                                            ├─► ingest: hashed and stored
//!                                            └─► decompressed ─► archive::apply ─► a snapshot's
//!                                                                                  directory
//!   all layers there ─► implicit parents fixed, lowest layer first ─► one syncfs
//!                    ─► snapshots committed, each naming its parent ─► labels ─► image record
//! ```
//! Layers are fetched and applied side by side, each into a snapshot of its own without a parent,
//! which is named at commit. A layer that has hard links into lower layers can't be made alone: it
//! is applied in its turn, in an overlay over them.
//!
//! # Who waits for whom
//! A blob is fetched by one at a time, over all namespaces; each snapshot of a chain is built by one
//! at a time in a namespace. Whoever waited looks again at what there is. The locks of a chain are
//! taken lowest first and before those of blobs, and no one who holds a blob's lock waits for
//! another.
//!
//! # Blobs
//! The blobs of layers are kept beside what is unpacked of them, or are garbage after a pull, as
//! [`Blobs`] says. What needs a discarded one, a push, an export, another snapshotter, makes it again
//! from the layer's image ([`berth_erofs::Archive`]), or fetches it again.
//!
//! # What is left behind
//! A lease keeps everything until the image record does. A pull that fails removes its snapshots.
//! When the failure may pass (a registry that is down), what was fetched is kept, for an hour, to
//! be resumed; after any other failure it is garbage, and collected at once. What a killed process
//! left half unpacked goes when the next one starts.

mod chain;
mod choice;
mod discard;
mod downloads;
mod import;
mod layer;
mod lease;
mod locks;
mod progress;
mod puller;
mod push;
mod record;
mod repair;
mod resolved;
mod restore;
mod session;
mod settle;
mod stream;

use berth_types::{Error, Result};

pub use progress::{LayerProgress, Phase, Progress};
pub use puller::{Blobs, ImportRequest, PullRequest, Puller, Reclaim};
pub use push::PushRequest;
pub use repair::{LayerRepair, sources};
pub use resolved::{Layer, Resolved, read, read_present};

/// Runs what blocks on the disk off the async threads.
async fn blocking<T: Send + 'static>(
    action: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(action).await;
    done.map_err(|error| Error::internal(format!("a thread for the disk failed: {error}")))?
}
