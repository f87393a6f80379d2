//! Image configurations: OCI's `config.md` with the fields that Docker adds.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::descriptor::null_is_empty;
use super::document::check_size;
use crate::platform::Platform;
use crate::{Digest, Error, Result};

/// What an image says about itself: platform, layers, history, and how containers of it start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// When it was made, as an RFC 3339 time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// The architecture, as written in the document.
    #[serde(deserialize_with = "null_is_empty")]
    pub architecture: String,
    /// The variant of the architecture, as written in the document.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// The operating system, as written in the document.
    #[serde(deserialize_with = "null_is_empty")]
    pub os: String,
    /// How containers start.
    #[serde(deserialize_with = "null_is_empty")]
    pub config: ContainerConfig,
    /// The layers.
    pub rootfs: RootFs,
    /// How each layer came to be.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) when it is malformed or larger than
    /// [`MAX_SIZE`](super::MAX_SIZE).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        check_size(bytes)?;
        serde_json::from_slice(bytes)
            .map_err(|e| Error::invalid_argument(format!("image config is malformed: {e}")))
    }

    /// The platform in normal form. Images without an architecture are taken for the host's, as
    /// Docker's oldest images have none.
    pub fn platform(&self) -> Platform {
        if self.architecture.is_empty() {
            return Platform::host();
        }
        Platform::new(&self.os, &self.architecture, &self.variant)
    }
}

/// How containers of an image start unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// User and group: `user`, `uid`, `user:group` or `uid:gid`; empty is root.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports that are listened on: `80/tcp`.
    #[serde(with = "set", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// The environment: `KEY=VALUE`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// What runs, with the command as its further arguments.
    #[serde(deserialize_with = "words", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The command, or the entrypoint's arguments.
    #[serde(deserialize_with = "words", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directories that get a volume.
    #[serde(with = "set", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// The working directory; empty is `/`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks a container to end: a name or a number.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Docker's: how to tell whether a container is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker's: instructions for builds that start from this image.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Docker's: what the shell form of later instructions runs in.
    #[serde(deserialize_with = "words", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// Docker's health check. Durations are in nanoseconds; zero is the engine's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`, or `CMD` with arguments, or `CMD-SHELL` with one string; empty is the base image's.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Until a check counts as failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// For starting up, in which failures don't count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks while starting up.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row until a container is unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

impl RootFs {
    /// The chain ids (`config.md#layer-chainid`): for each layer the name of the tree that it and
    /// those below it make.
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.diff_ids.len());
        for diff_id in &self.diff_ids {
            chain.push(match chain.last() {
                Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
                None => diff_id.clone(),
            });
        }
        chain
    }
}

/// How one layer, or one instruction without a layer, came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, as an RFC 3339 time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A remark.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Reads a list of words; a single string, which old tools write, is a list of one.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<Words>::deserialize(deserializer)? {
        Some(Words::One(word)) => vec![word],
        Some(Words::Many(words)) => words,
        None => Vec::new(),
    })
}

/// Sets that are written as maps to empty objects.
mod set {
    use super::{BTreeMap, BTreeSet, Deserialize, Deserializer, Serializer};

    #[derive(serde::Serialize)]
    struct Nothing {}

    pub(super) fn serialize<S: Serializer>(
        set: &BTreeSet<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(set.iter().map(|key| (key, Nothing {})))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, serde::de::IgnoredAny>>::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_docker_writes() {
        let json = r#"{
            "architecture": "amd64", "os": "linux", "created": "2024-05-01T10:00:00Z",
            "container": "x", "docker_version": "26", "author": null,
            "config": {
                "Hostname": "", "User": "app:staff", "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Env": ["A=1"], "Cmd": "sh", "Entrypoint": null, "Volumes": {"/data": {}},
                "WorkingDir": "/w", "Labels": null, "OnBuild": ["RUN x"], "StopSignal": "SIGQUIT",
                "Shell": ["/bin/bash", "-c"],
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5000000000, "Retries": 2}
            },
            "rootfs": {"type": "layers", "diff_ids": null},
            "history": [{"created_by": "ADD x", "empty_layer": true}]
        }"#;
        let image = ImageConfig::parse(json.as_bytes()).unwrap();
        let config = &image.config;
        assert_eq!(image.platform().to_string(), "linux/amd64");
        assert_eq!(config.user, "app:staff");
        assert_eq!(config.exposed_ports.iter().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.cmd, ["sh"]);
        assert!(config.entrypoint.is_empty() && config.labels.is_empty());
        assert_eq!(config.volumes.iter().collect::<Vec<_>>(), ["/data"]);
        assert_eq!(config.on_build, ["RUN x"]);
        assert_eq!(config.stop_signal, "SIGQUIT");
        assert_eq!(config.shell, ["/bin/bash", "-c"]);
        let health = config.healthcheck.as_ref().unwrap();
        assert_eq!((health.interval, health.retries), (5_000_000_000, 2));
        assert!(image.history[0].empty_layer);
        let again = ImageConfig::parse(&serde_json::to_vec(&image).unwrap()).unwrap();
        assert_eq!(again, image);
    }

    #[test]
    fn a_chain_id_names_all_layers_up_to_it() {
        let ids: Vec<_> = [b"a", b"b", b"c"].into_iter().map(|bytes| Digest::of(bytes)).collect();
        let chain = RootFs { kind: String::new(), diff_ids: ids.clone() }.chain_ids();
        assert_eq!(chain[0], ids[0]);
        assert_eq!(chain[1], Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes()));
        assert_eq!(chain[2], Digest::of(format!("{} {}", chain[1], ids[2]).as_bytes()));
        assert!(RootFs::default().chain_ids().is_empty());
    }

    #[test]
    fn tolerates_missing_parts_and_refuses_wrong_ones() {
        let image = ImageConfig::parse(br#"{"config":null,"rootfs":{}}"#).unwrap();
        assert_eq!(image.platform(), Platform::host());
        let bad_digest = br#"{"rootfs":{"diff_ids":["sha256:../../x"]}}"#;
        assert!(ImageConfig::parse(bad_digest).is_err());
        assert!(ImageConfig::parse(b"[]x").is_err());
        let huge = vec![b' '; 50 << 20];
        assert!(ImageConfig::parse(&huge).unwrap_err().message().contains("bytes"));
    }
}
