//! Snapshotters: what turns layers into root filesystems.
//!
//! # Vocabulary
//! A **snapshot** is a filesystem tree that builds on its **parent**'s. It is **active** while it
//! can be written, **committed** once it is immutable and can be a parent, and a **view** when it
//! is a committed parent mounted read-only. Its **key** names it. Keys are global here: the daemon
//! puts the namespace before a client's key, as in `default/sha256:…`, so namespaces never meet.
//!
//! # Life cycle
//! ```text
//!             prepare                 commit
//!  parent ─────────────► active ─────────────────► committed ───► parent of others
//!     │                    │  remove                   │  remove, while it has no children
//!     │      view          ▼                           ▼
//!     └────────────────► view ──────────────────────► gone
//!                                remove
//! ```
//! A snapshotter returns [`Mount`]s and never mounts a snapshot itself: whoever uses one mounts it
//! where it is needed, so nothing has to be unmounted when they die. [`Erofs`] does mount its
//! layers, which all that is built on them share.
//!
//! [`Overlay`] keeps a layer as a directory, [`Erofs`] as one file, [`Native`] copies whole trees;
//! what they have in common is in `numbered.rs`. [`Remote`] asks another process.
//!
//! # Example
//! Two layers of an image, then a container's root filesystem:
//! ```text
//! prepare("ns/extract-1", parent "")           → bind mount of an empty directory
//!   … extract the first layer there …
//! commit("ns/chain-1", "ns/extract-1")
//! prepare("ns/extract-2", parent "ns/chain-1") → overlay of an empty upper directory
//!   … extract the second layer there …
//! commit("ns/chain-2", "ns/extract-2")
//! prepare("ns/container", parent "ns/chain-2") → the mounts of the container's root
//! ```
//! Layers can also be extracted side by side without a parent, which is then named at commit (see
//! [`CommitOptions::parent`]); containerd calls this the capability `rebase`.

#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod directories;
mod erofs;
mod filter;
mod form;
mod native;
mod numbered;
mod overlay;
mod piped;
mod records;
mod remote;
mod service;
mod strays;
mod usage;
pub mod wire;

pub use contract::{
    CommitOptions, Image, Info, Kind, Mount, PrepareOptions, Relabel, Snapshotter, Usage, VOLATILE,
};
pub use erofs::{Erofs, mount_image, probe_erofs};
pub use native::Native;
pub use overlay::Overlay;
pub use remote::Remote;
pub use service::Service;
