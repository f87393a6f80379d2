//! How registries are reached, as the configuration says.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use berth_registry::{Client, Config, Credentials, HostConfig, Patience};
use berth_types::{Error, Reference, Result, ResultExt};

use crate::config::{Registry, RegistryFiles};

/// A client for the registries in `configured`, by host and port, for those in `files`, and for
/// all others.
///
/// # Errors
/// [`Kind::InvalidArgument`](berth_types::Kind::InvalidArgument) for a name that no reference can
/// have, and for half a login; those of reading a password.
pub(crate) fn client(
    configured: &BTreeMap<String, Registry>,
    files: &RegistryFiles,
) -> Result<Client> {
    let mut hosts = BTreeMap::new();
    for (host, registry) in configured {
        let what = || format!("configuration of registry {host:?}");
        check_name(host).context(what)?;
        hosts.insert(host.clone(), host_config(registry).context(what)?);
    }
    let given = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
    let directories = std::env::split_paths(&files.config_path);
    Ok(Client::new(Config {
        hosts,
        directories: directories.filter(|path| !path.as_os_str().is_empty()).collect(),
        docker: given(&files.docker_config),
        patience: Patience::default(),
    }))
}

/// Settings under a name that references never have would be without effect.
fn check_name(host: &str) -> Result<()> {
    let named = format!("{host}/name").parse::<Reference>();
    if named.is_ok_and(|reference| reference.domain() == host) {
        return Ok(());
    }
    Err(Error::invalid_argument(
        "write the host as image references have it, with the port if they have one: \
         \"docker.io\", \"registry.example.com:5000\"",
    ))
}

fn host_config(registry: &Registry) -> Result<HostConfig> {
    let Registry { ca, plain_http, insecure, username, password_file } = registry.clone();
    let credentials = match (username, password_file) {
        (None, None) => Credentials::Anonymous,
        (Some(username), Some(file)) => {
            let what = || format!("read password_file {}", file.display());
            let text = fs::read_to_string(&file).context(what)?;
            let password = text.trim_end_matches(['\r', '\n']).to_owned();
            Credentials::Password { username, password }
        }
        (Some(_), None) => return Err(Error::invalid_argument("username needs a password_file")),
        (None, Some(_)) => return Err(Error::invalid_argument("password_file needs a username")),
    };
    Ok(HostConfig { ca, plain_http, insecure, credentials })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(host: &str, registry: Registry) -> String {
        let configured = [(host.to_owned(), registry)].into();
        client(&configured, &RegistryFiles::default()).err().unwrap().to_string()
    }

    #[test]
    fn names_are_those_of_references() {
        for host in ["docker.io", "localhost", "localhost:5000", "[::1]:5000", "r.example.com"] {
            let configured = [(host.to_owned(), Registry::default())].into();
            assert!(client(&configured, &RegistryFiles::default()).is_ok(), "{host}");
        }
        for host in ["https://r.example.com", "index.docker.io", "registry", "r.example.com/path"] {
            let refusal = refusal(host, Registry::default());
            assert!(refusal.contains(host) && refusal.contains("write the host"), "{refusal}");
        }
    }

    #[test]
    fn a_login_is_whole_and_its_password_can_be_read() {
        let username = Some("someone".to_owned());
        let half = Registry { username: username.clone(), ..Registry::default() };
        assert!(refusal("r.example.com", half).contains("needs a password_file"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        let half = Registry { password_file: Some(file.clone()), ..Registry::default() };
        assert!(refusal("r.example.com", half).contains("needs a username"));
        let whole = Registry { username, password_file: Some(file.clone()), ..Default::default() };
        assert!(refusal("r.example.com", whole.clone()).contains(file.to_str().unwrap()));
        fs::write(&file, "se cret\n").unwrap();
        let expected =
            Credentials::Password { username: "someone".into(), password: "se cret".into() };
        assert!(host_config(&whole).unwrap().credentials == expected);
    }
}
