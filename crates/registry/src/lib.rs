//! A client of the OCI distribution protocol
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md>) and of Docker's token
//! authentication (<https://distribution.github.io/distribution/spec/auth/token/>).
//!
//! A [`Client`] holds what is shared: configuration, connections, tokens. A [`Repository`] of it
//! answers for one repository: it resolves tags, fetches manifests, reads blobs as streams that
//! resume by themselves, and takes what is pushed.
//!
//! What is fetched is not trusted: manifests are checked against digest and size here; of a blob
//! the size is checked here and the digest by whoever stores it, which hashes it anyway.
//!
//! Everything has an end: requests are repeated a few times with growing pauses, a peer that sends
//! next to nothing is given up, and credentials go to the registry that they are for and to the
//! token server it names, never along a redirect.

mod auth;
mod blob;
mod body;
mod client;
mod config;
mod docker;
mod endpoint;
mod failure;
mod push;
mod repository;
mod request;
mod retry;
mod sites;
mod trust;

pub use blob::Blob;
pub use client::Client;
pub use config::{Config, Credentials, HostConfig, Patience};
pub use repository::Repository;
