//! Starting a shim that isn't ours: containerd's `start` protocol in its three dialects.
//!
//! The shim's binary is run with the action `start` in the bundle. It leaves a server behind and
//! prints where that listens:
//!
//! | containerd | standard input | standard output |
//! |---|---|---|
//! | 1.6 | the options, an encoded `Any` | the address |
//! | 1.7 to 2.2 | the same | JSON: version, address, protocol |
//! | from 2.3 | an encoded `BootstrapParams` | an encoded `BootstrapResult` |
//!
//! Which input a shim wants is asked with `-info`; the output tells itself apart.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use berth_proto::containerd::runtime::bootstrap::v1::{
    BootstrapParams, BootstrapResult, Extension,
};
use berth_proto::containerd::types::RuntimeInfo;
use berth_types::{Error, Result, ResultExt};
use prost::Message;
use prost_types::Any;
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::child;
use crate::config::Config;

const START: Duration = Duration::from_secs(20);
const INFO: Duration = Duration::from_secs(5);
const DELETE: Duration = Duration::from_secs(20);

/// What `start` answered: where a shim listens and what it speaks. The JSON form is containerd's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Bootstrap {
    /// Of the task service: 2 or 3.
    pub(crate) version: i32,
    /// As the shim gave it, with or without `unix://`.
    pub(crate) address: String,
    /// Only `ttrpc` is spoken here.
    pub(crate) protocol: String,
}

impl Bootstrap {
    /// What a shim printed, in any dialect.
    pub(crate) fn parse(output: &[u8]) -> Result<Self> {
        let text = output.trim_ascii();
        let malformed = |error: &dyn std::fmt::Display| {
            Error::internal(format!("the shim's answer to `start` is malformed: {error}"))
        };
        let parsed = match text.first() {
            Some(b'{') => serde_json::from_slice(text).map_err(|error| malformed(&error))?,
            // The first field of a `BootstrapResult` is its version.
            Some(0x08) => {
                let BootstrapResult { version, address, protocol, .. } =
                    BootstrapResult::decode(output).map_err(|error| malformed(&error))?;
                Self { version, address, protocol }
            }
            _ => Self {
                version: 2,
                address: String::from_utf8(text.to_vec()).map_err(|error| malformed(&error))?,
                protocol: "ttrpc".to_owned(),
            },
        };
        parsed.checked()
    }

    fn checked(self) -> Result<Self> {
        if self.protocol != "ttrpc" || !(2..=3).contains(&self.version) {
            return Err(Error::unimplemented(format!(
                "the shim speaks {} of version {}; only ttrpc of version 2 or 3 is spoken here",
                self.protocol, self.version
            )));
        }
        if !self.socket().is_absolute() {
            return Err(Error::internal(format!(
                "the shim answered `start` with {:?}, which is no path of a socket",
                self.address
            )));
        }
        Ok(self)
    }

    /// The path of the socket.
    pub(crate) fn socket(&self) -> &Path {
        Path::new(self.address.strip_prefix("unix://").unwrap_or(&self.address))
    }
}

/// Runs `start` and remembers the answer in the bundle.
pub(crate) async fn start(
    config: &Config,
    binary: &Path,
    bundle: &Bundle,
    options: Option<&Any>,
) -> Result<Bootstrap> {
    bundle.remember_binary(binary)?;
    let input = if wants_params(binary).await {
        params(config, bundle, options).encode_to_vec()
    } else {
        options.map(Message::encode_to_vec).unwrap_or_default()
    };
    let mut start = command(config, binary, bundle);
    start.arg("start");
    let output = child::run(start, &input, START).await?;
    let bootstrap = Bootstrap::parse(&output)?;
    bundle.remember_bootstrap(&bootstrap)?;
    Ok(bootstrap)
}

fn params(config: &Config, bundle: &Bundle, options: Option<&Any>) -> BootstrapParams {
    BootstrapParams {
        instance_id: bundle.id.clone(),
        namespace: bundle.namespace.clone(),
        containerd_ttrpc_address: config.ttrpc_address().to_string_lossy().into_owned(),
        containerd_grpc_address: config.address.to_string_lossy().into_owned(),
        containerd_binary: own_binary().to_string_lossy().into_owned(),
        extensions: options
            .map(|value| Extension { value: Some(value.clone()) })
            .into_iter()
            .collect(),
        ..Default::default()
    }
}

/// Whether a shim is of containerd 2.3 or later. One that doesn't say isn't.
async fn wants_params(binary: &Path) -> bool {
    let mut info = Command::new(binary);
    info.arg("-info");
    let Ok(output) = child::run(info, b"", INFO).await else { return false };
    let version = RuntimeInfo::decode(&*output).ok().and_then(|info| info.version);
    version.is_some_and(|version| at_least_2_3(&version.version))
}

fn at_least_2_3(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+', '~']);
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    matches!((next(), next()), (Some(major), Some(minor)) if (major, minor) >= (2, 3))
}

/// Runs the action `delete`, which ends and cleans up what a dead shim left, and returns what it
/// printed: an encoded `DeleteResponse`.
pub(crate) async fn delete(config: &Config, binary: &Path, bundle: &Bundle) -> Result<Vec<u8>> {
    let mut delete = command(config, binary, bundle);
    delete.arg("-bundle").arg(&bundle.path).arg("delete");
    child::run(delete, b"", DELETE)
        .await
        .context(|| format!("clean up after the shim of container {}", bundle.id))
}

/// A shim's binary with the flags and the environment that each action gets.
pub(crate) fn command(config: &Config, binary: &Path, bundle: &Bundle) -> Command {
    let mut command = Command::new(binary);
    describe(&mut command, config, bundle);
    command
}

/// Gives a shim's command the flags and the environment that each action gets.
pub(crate) fn describe(command: &mut Command, config: &Config, bundle: &Bundle) {
    command
        .current_dir(&bundle.path)
        .arg("-namespace")
        .arg(&bundle.namespace)
        .arg("-address")
        .arg(&config.address)
        .arg("-publish-binary")
        .arg(own_binary())
        .arg("-id")
        .arg(&bundle.id)
        .env("TTRPC_ADDRESS", config.ttrpc_address())
        .env("GRPC_ADDRESS", &config.address)
        .env("NAMESPACE", &bundle.namespace)
        .env("MAX_SHIM_VERSION", "3")
        // Go's runtime otherwise starts threads for every processor in each shim.
        .env("GOMAXPROCS", "2");
}

/// This daemon, as shims are told; they run it only where they can't reach the ttrpc socket.
fn own_binary() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("berthd"))
}

#[cfg(test)]
mod tests {
    use berth_types::Kind;

    use super::*;

    fn bootstrap(version: i32) -> Bootstrap {
        Bootstrap { version, address: "unix:///run/s/1".into(), protocol: "ttrpc".into() }
    }

    #[test]
    fn all_dialects_are_understood() {
        assert_eq!(Bootstrap::parse(b"unix:///run/s/1\n").unwrap(), bootstrap(2));
        let json = br#"{"version":3,"address":"unix:///run/s/1","protocol":"ttrpc"}"#;
        assert_eq!(Bootstrap::parse(json).unwrap(), bootstrap(3));
        let result = BootstrapResult {
            version: 3,
            address: "unix:///run/s/1".into(),
            protocol: "ttrpc".into(),
            ..Default::default()
        };
        assert_eq!(Bootstrap::parse(&result.encode_to_vec()).unwrap(), bootstrap(3));
        assert_eq!(bootstrap(2).socket(), Path::new("/run/s/1"));
    }

    #[test]
    fn other_answers_are_refused() {
        for answer in ["", "panic: oh", "{}", "{\"version\":2", "\u{8}\u{2}\u{12}"] {
            assert!(Bootstrap::parse(answer.as_bytes()).is_err(), "{answer:?}");
        }
        let grpc = br#"{"version":3,"address":"unix:///run/s/1","protocol":"grpc"}"#;
        assert_eq!(Bootstrap::parse(grpc).unwrap_err().kind(), Kind::Unimplemented);
    }

    #[test]
    fn versions_compare() {
        for version in ["v2.3.0", "2.3.0-rc.1", "2.10.1", "3.0"] {
            assert!(at_least_2_3(version), "{version}");
        }
        for version in ["", "v2.2.9", "1.7.30", "2", "x.y", "1.6.20~ds1"] {
            assert!(!at_least_2_3(version), "{version}");
        }
    }
}
