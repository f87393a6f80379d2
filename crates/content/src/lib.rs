//! The content store: blobs and ingests as files.
//!
//! ```text
//! ROOT/content/                        0700
//!   blobs/ALGORITHM/HEX                0444, whole, fsynced before it got this name
//!   ingest/SHA-256 OF THE REF/
//!     about                            the expected size (0: unknown), a newline, the ref;
//!                                      its modification time is when the ingest began
//!     data                             what was written; its modification time is the last write
//! ```
//!
//! A blob never changes. A file that a crash leaves under `ingest/` is either resumed by its ref
//! or aborted. The store knows no namespaces and no labels: those are rows of the crate
//! `metadata`. All calls block on the disk.
//!
//! A [`Remote`] may keep the blobs instead. They are then ingested here, handed over at the commit,
//! and fetched to be read. Blobs that were here before stay here.

mod check;
mod ingest;
mod lock;
mod remote;
mod store;
mod writer;

pub use ingest::Status;
pub use remote::Remote;
pub use store::{ContentStore, Info, Reader};
pub use writer::Writer;
