//! The nouns of berth, without I/O.
//!
//! Every other crate speaks in these: an operation that fails returns an [`Error`] with a
//! [`Kind`], a container is named by an id that [`id::validate`] accepts, bytes are named by a
//! [`Digest`].

mod digest;
mod error;
mod fault;
pub mod filter;
pub mod id;
pub mod image;
pub mod labels;
pub mod platform;
pub mod reference;
pub mod signal;
pub mod spec;
pub mod user;

pub use digest::{Algorithm, Digest, Hasher};
pub use error::{Error, Kind, Result, ResultExt};
pub use fault::Fault;
pub use platform::Platform;
pub use reference::Reference;
