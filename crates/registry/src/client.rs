//! What all repositories share: configuration, connections and tokens.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use berth_types::{Error, Reference, Result};
use reqwest::Url;
use reqwest::redirect::Policy;

use crate::auth::Tokens;
use crate::config::{Config, Credentials, HostConfig};
use crate::docker;
use crate::endpoint::Endpoint;
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
    /// The system's and those in files; with a certificate to show to it.
    Listed(trust::Files),
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
        Repository::new(self.clone(), reference.domain(), reference.path(), credentials)
    }

    /// Who asks the registry `domain`, when a call does not say.
    pub(crate) async fn credentials(&self, domain: &str) -> Result<Credentials> {
        let configured = self.host(domain).map(|host| host.credentials.clone());
        match (configured.unwrap_or_default(), &self.shared.config.docker) {
            (Credentials::Anonymous, Some(file)) => {
                docker::credentials(file.clone(), domain.to_owned()).await
            }
            (configured, _) => Ok(configured),
        }
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
        let ca = self.host(&domain).map(|host| host.ca.clone()).unwrap_or_default();
        let trust = match url.scheme() {
            "http" => Trust::Anyone,
            _ if self.may_be_plain(&domain) => Trust::Anyone,
            _ if !ca.is_empty() => {
                Trust::Listed(trust::Files { registry: domain, ca, client: Vec::new() })
            }
            _ => Trust::System,
        };
        self.trusting(trust)
    }

    /// The connections to an endpoint, with the trust that it is configured with.
    pub(crate) fn transport_to(&self, endpoint: &Endpoint) -> Result<reqwest::Client> {
        let Endpoint { url, ca, client, skip_verify, .. } = endpoint;
        if url.scheme() == "http" || (*skip_verify && client.is_empty()) {
            return self.trusting(Trust::Anyone);
        }
        if *skip_verify {
            return Err(Error::failed_precondition(format!(
                "registry {}: skip_verify would show its client certificate to anyone: give a ca",
                domain_of(url)
            )));
        }
        if ca.is_empty() && client.is_empty() {
            return self.transport(url);
        }
        let (ca, client) = (ca.clone(), client.clone());
        self.trusting(Trust::Listed(trust::Files { registry: domain_of(url), ca, client }))
    }

    fn trusting(&self, trust: Trust) -> Result<reqwest::Client> {
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
            Trust::Listed(files) => {
                builder = builder.tls_backend_preconfigured(trust::tls(files)?);
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
