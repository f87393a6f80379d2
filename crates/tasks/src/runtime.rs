//! From the name of a runtime to the shim that runs it.

use std::path::{Path, PathBuf};

use berth_types::{Error, Result};

use crate::config::{Config, find_binary};

/// The names that our own shim answers to: its own, which is the default, and the one that every
/// stock client asks for.
const OWN: [&str; 2] = ["io.containerd.berth.v1", "io.containerd.runc.v2"];

/// The default runtime.
pub const DEFAULT_RUNTIME: &str = OWN[0];

/// The shim that runs a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// Ours.
    Own,
    /// Any other, by the path of its binary.
    Foreign(PathBuf),
}

impl Runtime {
    /// Resolves a name as containerd does: an absolute path is a shim's binary; otherwise the
    /// last two parts of the name make the binary's, `io.containerd.NAME.VERSION` becoming
    /// `containerd-shim-NAME-VERSION`. Configured names and [`OWN`] come first.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that can't name a binary, `NotFound` when it isn't installed.
    pub(crate) fn resolve(config: &Config, name: &str) -> Result<Self> {
        if Path::new(name).is_absolute() {
            return Self::at(name, Path::new(name));
        }
        if let Some(path) = config.runtimes.get(name) {
            return Self::at(name, path);
        }
        if OWN.contains(&name) {
            return Ok(Self::Own);
        }
        let binary = binary_name(name).ok_or_else(|| {
            Error::invalid_argument(format!(
                "runtime {name:?} must be an absolute path or a name like {DEFAULT_RUNTIME}"
            ))
        })?;
        find_binary(&binary).map(Self::Foreign).ok_or_else(|| {
            Error::not_found(format!(
                "runtime {name:?}: {binary} is not installed beside berthd or on its PATH"
            ))
        })
    }

    /// A shim by its binary.
    fn at(name: &str, path: &Path) -> Result<Self> {
        if path.is_file() {
            return Ok(Self::Foreign(path.to_owned()));
        }
        Err(Error::not_found(format!("runtime {name:?}: there is no file {}", path.display())))
    }

    /// The binary.
    pub(crate) fn binary<'a>(&'a self, config: &'a Config) -> &'a Path {
        match self {
            Self::Own => &config.shim,
            Self::Foreign(path) => path,
        }
    }
}

/// `containerd-shim-NAME-VERSION` for a name of two parts or more.
fn binary_name(runtime: &str) -> Option<String> {
    let parts: Vec<&str> = runtime.split('.').collect();
    let well_formed = parts.iter().all(|part| !part.is_empty() && !part.contains('/'));
    match parts[..] {
        [.., name, version] if well_formed => Some(format!("containerd-shim-{name}-{version}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use berth_types::Kind;

    use super::*;

    fn config() -> Config {
        Config {
            state: "/nonexistent".into(),
            address: "/nonexistent/sock".into(),
            shim: "/nonexistent/shim".into(),
            runtimes: [("my.sh.v1".to_owned(), PathBuf::from("/bin/sh"))].into(),
        }
    }

    #[test]
    fn names_become_binaries() {
        assert_eq!(
            binary_name("io.containerd.kata.v2").as_deref(),
            Some("containerd-shim-kata-v2")
        );
        for name in ["", "runc", "io..v2", "io.a/b.v2", "."] {
            assert_eq!(binary_name(name), None, "{name}");
        }
    }

    #[test]
    fn runtimes_resolve() {
        let resolve = |name| Runtime::resolve(&config(), name);
        assert_eq!(resolve("io.containerd.berth.v1").unwrap(), Runtime::Own);
        assert_eq!(resolve("io.containerd.runc.v2").unwrap(), Runtime::Own);
        assert_eq!(resolve("/bin/sh").unwrap(), Runtime::Foreign("/bin/sh".into()));
        assert_eq!(resolve("my.sh.v1").unwrap(), Runtime::Foreign("/bin/sh".into()));
        assert_eq!(resolve("/nonexistent/x").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(resolve("io.absent.v9").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(resolve("runc").unwrap_err().kind(), Kind::InvalidArgument);
    }
}
