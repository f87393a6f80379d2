//! What all repositories share: configuration, connections and tokens.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use berth_types::{Error, Reference, Result};
use reqwest::Url;
use reqwest::redirect::Policy;

use crate::auth::Tokens;
use crate::config::{Config, Credentials, HostConfig};
use crate::repository::Repository;
use crate::trust;

/// The host that serves the registry `docker.io`.
pub(crate) const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const DOCKER_HUB: &str = "docker.io";

/// A client of any registry. Clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    transports: Mutex<HashMap<Trust, reqwest::Client>>,
    tokens: Tokens,
}

/// Whose certificates a connection trusts.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Trust {
    /// Anyone's; also for plain HTTP.
    Anyone,
    /// Those of the system's authorities.
    System,
    /// The system's and those of the `ca` files of this registry.
    Registry(String),
}

impl Client {
    /// A client that reaches registries as `config` says. Nothing is read or connected yet.
    pub fn new(config: Config) -> Self {
        // Fails when a provider was chosen before, which is then as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (transports, tokens) = (Mutex::default(), Tokens::default());
        Self { shared: Arc::new(Shared { config, transports, tokens }) }
    }

    /// The repository of `reference`, on behalf of `credentials`, or of the configured ones when
    /// those are [`Credentials::Anonymous`].
    pub fn repository(&self, reference: &Reference, credentials: Credentials) -> Repository {
        let domain = reference.domain();
        let credentials = match (credentials, self.host(domain)) {
            (Credentials::Anonymous, Some(host)) => host.credentials.clone(),
            (given, _) => given,
        };
        Repository::new(self.clone(), domain, reference.path(), credentials)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.shared.tokens
    }

    pub(crate) fn host(&self, domain: &str) -> Option<&HostConfig> {
        self.shared.config.hosts.get(domain)
    }

    /// Whether `domain` may be spoken to without verified TLS.
    pub(crate) fn may_be_plain(&self, domain: &str) -> bool {
        match self.host(domain) {
            Some(host) if host.plain_http || host.insecure => true,
            Some(host) if !host.ca.is_empty() => false,
            _ => is_loopback(domain),
        }
    }

    /// The connections for `url`, with the trust that is configured for its host.
    pub(crate) fn transport(&self, url: &Url) -> Result<reqwest::Client> {
        let domain = domain_of(url);
        let has_ca = self.host(&domain).is_some_and(|host| !host.ca.is_empty());
        let trust = match url.scheme() {
            "http" => Trust::Anyone,
            _ if self.may_be_plain(&domain) => Trust::Anyone,
            _ if has_ca => Trust::Registry(domain),
            _ => Trust::System,
        };
        let mut transports = self.shared.transports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(transport) = transports.get(&trust) {
            return Ok(transport.clone());
        }
        let transport = self.build(&trust)?;
        transports.insert(trust, transport.clone());
        Ok(transport)
    }

    fn build(&self, trust: &Trust) -> Result<reqwest::Client> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(self.shared.config.patience.connect);
        match trust {
            // Proxies are for what is far away.
            Trust::Anyone => {
                builder = builder.tls_danger_accept_invalid_certs(true).no_proxy();
            }
            Trust::System => {}
            Trust::Registry(domain) => {
                let ca = self.host(domain).map(|host| &*host.ca).unwrap_or_default();
                builder = builder.tls_backend_preconfigured(trust::tls(domain, ca)?);
            }
        }
        builder.build().map_err(|e| {
            Error::failed_precondition(format!(
                "TLS can't be set up: {e}; without the package ca-certificates only registries \
                 with a `ca` setting can be reached"
            ))
        })
    }
}

/// The registry's name in references and configuration.
pub(crate) fn domain_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None if host == DOCKER_HUB_HOST => DOCKER_HUB.to_owned(),
        None => host.to_owned(),
    }
}

/// Whether a registry is on this machine: `localhost`, 127.0.0.0/8 or ::1.
fn is_loopback(domain: &str) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => domain.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_name_or_address() {
        for domain in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(domain), "{domain}");
        }
        for domain in ["localhost.example.com", "128.0.0.1", "[::2]:1", "127.0.0.1.example.com"] {
            assert!(!is_loopback(domain), "{domain}");
        }
    }
}
