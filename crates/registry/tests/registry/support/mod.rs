//! What the tests of this crate share: Debian's registry, and a server that misbehaves.

pub(crate) mod docker;
pub(crate) mod hostile;

use std::time::Duration;

use berth_registry::{Blob, Client, Config, Credentials, HostConfig, Patience, Repository};
use berth_types::{Reference, Result};

/// Small waits, so that failing is quick.
pub(crate) fn patience() -> Patience {
    Patience {
        attempts: 3,
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_secs(1),
        connect: Duration::from_secs(5),
        progress: Duration::from_secs(5),
    }
}

/// A client with settings for one registry.
pub(crate) fn client(domain: &str, host: HostConfig) -> Client {
    let hosts = [(domain.to_owned(), host)].into();
    Client::new(Config { hosts, patience: patience(), ..Config::default() })
}

/// The reference `REGISTRY/PATH`, and its repository for anyone.
pub(crate) fn repository(domain: &str, path: &str) -> (Reference, Repository) {
    let plain = HostConfig { plain_http: true, ..HostConfig::default() };
    let reference: Reference = format!("{domain}/{path}").parse().unwrap();
    let repository = client(domain, plain).repository(&reference, Credentials::Anonymous);
    (reference, repository)
}

/// All of a blob.
pub(crate) async fn read(mut blob: Blob) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(bytes) = blob.next().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// `length` bytes that differ from their neighbours.
pub(crate) fn bytes(length: u32) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}
