//! What a client is told about registries.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Settings of registries by their host, with a port where references have one:
    /// `docker.io`, `registry.example.com:5000`.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Directories with a directory for each registry that has mirrors: `HOST/hosts.toml`. The
    /// first one that has something for a registry counts. They are read for each image.
    pub directories: Vec<PathBuf>,
    /// Docker's `config.json`, with logins for registries that have no credentials in `hosts`.
    /// It is read for each image.
    pub docker: Option<PathBuf>,
    /// How long to wait and how often to try.
    pub patience: Patience,
}

/// How one registry is reached.
#[derive(Clone, Debug, Default)]
pub struct HostConfig {
    /// Files with certificates (PEM) of authorities to trust besides the system's.
    pub ca: Vec<PathBuf>,
    /// Speak HTTP without TLS.
    pub plain_http: bool,
    /// Accept any certificate, and plain HTTP where there is no TLS. Registries on loopback
    /// addresses are treated so unless they have a `ca`.
    pub insecure: bool,
    /// Used where a call brings none.
    pub credentials: Credentials,
}

/// Who is asking.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// Anyone.
    #[default]
    Anonymous,
    /// A user.
    Password {
        /// The name.
        username: String,
        /// The password, or an access token in its place.
        password: String,
    },
    /// A token that a login exchanged for a password (OAuth 2 refresh token).
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    /// Leaves the secrets out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Anonymous => f.write_str("Anonymous"),
            Credentials::Password { username, .. } => write!(f, "Password of {username:?}"),
            Credentials::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

/// How long to wait and how often to try.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Tries of one request, or of a transfer without progress, before it fails.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each.
    pub first_pause: Duration,
    /// The longest pause, also when a registry asks for more.
    pub longest_pause: Duration,
    /// For connecting, TLS included.
    pub connect: Duration,
    /// For a response to begin, and for each [`Patience::LEAST_PROGRESS`] bytes of it.
    pub progress: Duration,
}

impl Patience {
    /// Bytes that must arrive in each period of [`Patience::progress`].
    pub const LEAST_PROGRESS: u64 = 16 << 10;
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(30),
            connect: Duration::from_secs(10),
            progress: Duration::from_secs(20),
        }
    }
}
