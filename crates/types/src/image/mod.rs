//! Images as registries and clients describe them: descriptors, manifests, indexes and configs of
//! the OCI image specification, and of Docker's schema 2 that it came from.
//!
//! Reading is tolerant of what other tools write (nulls, missing fields, fields unknown here) and
//! strict about what matters for safety: digests, sizes, limits and what kind of document it is.

mod config;
mod descriptor;
mod document;
pub mod media_type;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use document::{Document, Index, MAX_LAYERS, MAX_SIZE, Manifest};
