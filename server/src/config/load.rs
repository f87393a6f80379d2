//! Reading the file: what is malformed is refused with its line, what is unknown is reported.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use berth_types::{Error, Result};

use super::{Config, VERSION, imports};

/// The oldest layout that is understood: containerd's names became what they are with it.
const OLDEST_VERSION: u32 = 2;

/// Where containerd's files say where `hosts.toml` are: those of its CRI service, version 3 and on
/// and version 2, and of its transfer service. The first one counts.
const CONFIG_PATHS: [&[&str]; 3] = [
    &["plugins", "io.containerd.cri.v1.images", "registry", "config_path"],
    &["plugins", "io.containerd.grpc.v1.cri", "registry", "config_path"],
    &["plugins", "io.containerd.transfer.v1.local", "config_path"],
];

/// Reads the file at `path`. Besides the configuration, returns the dotted names of keys that
/// berth does not know, so that one file can serve containerd and berth.
///
/// # Errors
/// [`Kind::InvalidArgument`](berth_types::Kind::InvalidArgument) with line and column for a
/// malformed file or value, and for a version that is not understood; NotFound for a missing file.
pub(crate) fn load(path: &Path) -> Result<(Config, Vec<String>)> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::not_found(format!("configuration file {} does not exist", path.display()))
        }
        _ => Error::io(format!("read configuration file {}", path.display()), &error),
    })?;
    let parsed = parse(&text).and_then(|table| understand(imports::merge(table, path)?));
    parsed.map_err(|error| error.context(format!("configuration file {}", path.display())))
}

/// As [`load`], but a missing file means the built-in configuration.
///
/// # Errors
/// Those of [`load`], except NotFound.
pub(crate) fn load_if_there(path: &Path) -> Result<(Config, Vec<String>)> {
    match path.try_exists() {
        Ok(false) => Ok((Config::default(), Vec::new())),
        _ => load(path),
    }
}

/// Parses one file, so that what is wrong with it is told by line and column.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn parse(text: &str) -> Result<Table> {
    let malformed = |error: toml::de::Error| Error::invalid_argument(error.to_string());
    toml::from_str::<Config>(text).map_err(malformed)?;
    toml::from_str(text).map_err(malformed)
}

/// Reads a configuration out of all files together.
fn understand(mut table: Table) -> Result<(Config, Vec<String>)> {
    let mut config: Config = Config::deserialize(table.clone())
        .map_err(|error| Error::invalid_argument(error.to_string()))?;
    let elsewhere = plugins_config_path(&mut table)?;
    if config.registry.config_path.as_os_str().is_empty() {
        config.registry.config_path = elsewhere;
    }
    if !(OLDEST_VERSION..=VERSION).contains(&config.version) {
        return Err(Error::invalid_argument(format!(
            "version {} is not understood: write `version = {VERSION}` ({OLDEST_VERSION} to \
             {VERSION} are accepted)",
            config.version
        )));
    }
    let proxies = config.proxy_plugins.values();
    let proxies = proxies.map(|proxy| ("address of a proxy plugin", &proxy.address));
    let own =
        [("root", &config.root), ("state", &config.state), ("grpc.address", &config.grpc.address)];
    for (name, path) in own.into_iter().chain(proxies) {
        if !path.is_absolute() {
            return Err(Error::invalid_argument(format!("{name} must be an absolute path")));
        }
    }
    if !config.cgroup.path.is_empty() && !config.cgroup.path.starts_with('/') {
        return Err(Error::invalid_argument(format!(
            "cgroup.path {:?} must start with a slash: it is a path in the kernel's hierarchy, not \
             one of systemd's names",
            config.cgroup.path
        )));
    }
    let mut unknown = Vec::new();
    collect_unknown(&table, &known_keys()?, "", &mut unknown);
    Ok((config, unknown))
}

/// Takes `registry.config_path` from where containerd's plugins have it; empty where none does.
///
/// # Errors
/// `InvalidArgument` for what is no path.
fn plugins_config_path(table: &mut Table) -> Result<PathBuf> {
    let mut found = PathBuf::new();
    for place in CONFIG_PATHS {
        match take(table, place) {
            None => {}
            Some(Value::String(path)) if path.is_empty() => {}
            Some(Value::String(path)) if found.as_os_str().is_empty() => found = path.into(),
            Some(Value::String(_)) => {}
            Some(other) => {
                let (place, kind) = (place.join("."), other.type_str());
                return Err(Error::invalid_argument(format!("{place}: a {kind} is no path")));
            }
        }
    }
    Ok(found)
}

/// Takes the value at `place` away, and the tables that are empty without it.
fn take(table: &mut Table, place: &[&str]) -> Option<Value> {
    let (first, rest) = place.split_first()?;
    if rest.is_empty() {
        return table.remove(*first);
    }
    let inner = table.get_mut(*first)?.as_table_mut()?;
    let value = take(inner, rest)?;
    if inner.is_empty() {
        table.remove(*first);
    }
    Some(value)
}

/// Every key there is: those of the built-in configuration, which leaves none out.
fn known_keys() -> Result<Table> {
    Table::try_from(Config::default())
        .map_err(|error| Error::internal(format!("list configuration keys: {error}")))
}

/// Adds the dotted names in `table` that are not in `known`. A known table without keys of its own
/// takes any.
fn collect_unknown(table: &Table, known: &Table, prefix: &str, unknown: &mut Vec<String>) {
    for (key, value) in table {
        match (value.as_table(), known.get(key).map(toml::Value::as_table)) {
            (Some(table), Some(Some(known))) if !known.is_empty() => {
                collect_unknown(table, known, &format!("{prefix}{key}."), unknown);
            }
            (_, Some(_)) => {}
            (_, None) => unknown.push(format!("{prefix}{key}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Level;

    fn read(text: &str) -> Result<(Config, Vec<String>)> {
        understand(super::parse(text)?)
    }

    #[test]
    fn a_file_of_containerd_is_understood_and_what_is_not_is_named() {
        let text = "version = 2\nroot = \"/a\"\noom_score = 0\n\
                    [grpc]\naddress = \"/b\"\ntcp_address = \"\"\nsurprise = 1\n\
                    [debug]\nlevel = \"debug\"\n\
                    [runtimes]\n\"io.containerd.runc.v2\" = \"/usr/bin/shim\"\n[plugins.x]\ny = 1\n";
        let (config, mut unknown) = read(text).unwrap();
        assert_eq!(config.root, Path::new("/a"));
        assert_eq!(config.grpc.address, Path::new("/b"));
        assert_eq!(config.debug.level, Level::Debug);
        assert_eq!(config.state, Config::default().state);
        unknown.sort();
        assert_eq!(unknown, ["grpc.surprise", "oom_score", "plugins.x"]);
    }

    #[test]
    fn containerds_key_for_verity_is_known() {
        let text = "[plugins.\"io.containerd.snapshotter.v1.erofs\"]\nenable_fsverity = true\n";
        let (config, unknown) = read(text).unwrap();
        assert!(config.plugins.erofs.enable_fsverity);
        assert_eq!(unknown, [""; 0]);
    }

    #[test]
    fn discarding_layers_is_read_where_containerd_reads_it() {
        let newest = "version = 3\n[plugins.'io.containerd.cri.v1.images']\n\
                      discard_unpacked_layers = true\nsnapshotter = \"erofs\"\n";
        let (config, unknown) = read(newest).unwrap();
        assert!(config.plugins.discard_unpacked_layers());
        assert_eq!(unknown, ["plugins.io.containerd.cri.v1.images.snapshotter"]);
        let older = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
                     discard_unpacked_layers = true\n";
        let (config, unknown) = read(older).unwrap();
        assert!(config.plugins.discard_unpacked_layers() && unknown.is_empty());
        let migrated = config.migrated();
        assert!(migrated.plugins.images.discard_unpacked_layers);
        assert!(!migrated.plugins.cri.containerd.discard_unpacked_layers);
        assert!(!read("version = 4\n").unwrap().0.plugins.discard_unpacked_layers());
    }

    #[test]
    fn containerds_places_of_hosts_are_known() {
        let of_cri = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/a:/b\"\n";
        let of_images =
            "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = \"/c\"\nmore = 1\n";
        let of_transfer = "[plugins.'io.containerd.transfer.v1.local']\nconfig_path = \"/d\"\n";
        let own = "[registry]\nconfig_path = \"/e\"\n";
        let path = |text: &str| {
            let (config, unknown) = read(text).unwrap();
            (config.registry.config_path.display().to_string(), unknown)
        };
        assert_eq!(path(of_cri), ("/a:/b".to_owned(), vec![]));
        assert_eq!(path(of_transfer), ("/d".to_owned(), vec![]));
        let all = [of_cri, of_images, of_transfer].concat();
        assert_eq!(
            path(&all),
            ("/c".to_owned(), vec!["plugins.io.containerd.cri.v1.images.registry".to_owned()])
        );
        assert_eq!(path(&(own.to_owned() + of_cri)), ("/e".to_owned(), vec![]));
        let number = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = 1\n";
        assert!(read(number).unwrap_err().message().contains("config_path"));
    }

    #[test]
    fn what_is_malformed_is_refused_with_its_line() {
        for text in ["version = 2\nroot = \n", "version = 2\nroot = 5\n"] {
            let error = read(text).unwrap_err();
            assert!(error.message().contains("line 2"), "{error}");
        }
        let error = read("[debug]\nlevel = \"loud\"\n").unwrap_err();
        assert!(error.message().contains("loud") && error.message().contains("line 2"), "{error}");
        let proxy = "[proxy_plugins.p]\ntype = \"snapshot\"\naddress = \"relative\"";
        for text in ["version = 1", "version = 5", "root = \"relative\"", proxy] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_built_in_configuration_reads_back() {
        let text = Config::default().to_toml().unwrap();
        assert_eq!(read(&text).unwrap(), (Config::default(), Vec::new()));
    }
}
