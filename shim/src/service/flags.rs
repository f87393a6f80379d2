//! The command line that containerd gives its shims, in the form of Go's `flag` package: one dash
//! or two, `-name value` or `-name=value`, the action after the flags.

use std::path::PathBuf;

use berth_types::{Error, Result};

/// What a shim is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// The tenant.
    pub(super) namespace: String,
    /// The container's id.
    pub(super) id: String,
    /// The daemon's gRPC socket.
    pub(super) address: String,
    /// The bundle, where the caller names it; else it is the working directory.
    pub(super) bundle: Option<PathBuf>,
    /// Log more.
    pub(super) debug: bool,
    /// Print the version and nothing else.
    pub(super) version: bool,
    /// Print what this runtime can do and nothing else.
    pub(super) info: bool,
    /// `start`, `delete` or `serve`.
    pub(super) action: String,
}

impl Flags {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// InvalidArgument for an unknown flag or a missing value.
    pub(super) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut flags = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'))
            else {
                flags.action = argument;
                break;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            if let Some(switch) = flags.switch(name) {
                *switch = value.is_none_or(|value| matches!(&*value, "1" | "t" | "true"));
                continue;
            }
            let missing = || Error::invalid_argument(format!("flag needs an argument: -{name}"));
            flags.set(name, value.or_else(|| arguments.next()).ok_or_else(missing)?)?;
        }
        Ok(flags)
    }

    fn switch(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "debug" => Some(&mut self.debug),
            "v" | "version" => Some(&mut self.version),
            "info" => Some(&mut self.info),
            _ => None,
        }
    }

    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "bundle" => self.bundle = Some(PathBuf::from(value)),
            // Events go over ttrpc, and `serve` is told its socket as its standard input.
            "publish-binary" | "socket" => {}
            _ => {
                let message = format!("flag provided but not defined: -{name}");
                return Err(Error::invalid_argument(message));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags> {
        Flags::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn containerds_command_line_is_understood() {
        let line = "-namespace k8s.io -address /run/containerd/containerd.sock \
                    -publish-binary /usr/bin/containerd -id a -bundle /b -debug delete";
        let flags = parse(line).unwrap();
        assert_eq!((&*flags.namespace, &*flags.id), ("k8s.io", "a"));
        assert_eq!(flags.address, "/run/containerd/containerd.sock");
        assert_eq!(flags.bundle, Some(PathBuf::from("/b")));
        assert!(flags.debug && !flags.version && !flags.info);
        assert_eq!(flags.action, "delete");
    }

    #[test]
    fn gos_other_forms_are_understood() {
        let flags = parse("--id=a -debug=false -v -info start -id b").unwrap();
        assert_eq!((&*flags.id, &*flags.action), ("a", "start"));
        assert!(!flags.debug && flags.version && flags.info);
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(parse("-id").unwrap_err().message(), "flag needs an argument: -id");
        assert!(parse("-colour red start").unwrap_err().message().contains("-colour"));
    }
}
