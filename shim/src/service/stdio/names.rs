//! What the streams of a process are called in requests, and what that means.

use std::path::PathBuf;

use berth_logs::{Format, Rotation};
use berth_types::{Error, Result};

use super::logger::Program;

/// The names, as the client gave them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Where input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Null,
    /// A FIFO that a client made.
    Fifo(PathBuf),
    /// Attached clients; with `once` it ends when the first of them leaves.
    Attached {
        once: bool,
    },
}

/// Where output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Null,
    /// A FIFO that a client made.
    Fifo(PathBuf),
    /// A file that is appended to.
    File(PathBuf),
    /// A log of Docker's form, or of Kubernetes'.
    Log(PathBuf, Format, Rotation),
    /// A program.
    Logger(Program),
    /// Attached clients only.
    Attached,
}

impl Source {
    /// # Errors
    /// InvalidArgument for a name of no known form.
    pub(super) fn parse(name: &str) -> Result<Self> {
        match name {
            "" => Ok(Self::Null),
            "attach:once" => Ok(Self::Attached { once: true }),
            "attach:keep" => Ok(Self::Attached { once: false }),
            _ => path(name.strip_prefix("fifo://").unwrap_or(name))
                .map(Self::Fifo)
                .ok_or_else(|| unknown("input", name)),
        }
    }
}

impl Target {
    /// # Errors
    /// InvalidArgument for a name of no known form.
    pub(super) fn parse(name: &str) -> Result<Self> {
        let (scheme, rest) = name.split_once("://").unwrap_or(("fifo", name));
        let target = match scheme {
            _ if name.is_empty() => Some(Self::Null),
            _ if name == "attach:" => Some(Self::Attached),
            "fifo" => path(rest).map(Self::Fifo),
            "file" => path(rest).map(Self::File),
            "log+json-file" => log(rest, Format::Json)?,
            "log+cri" => log(rest, Format::Cri)?,
            "binary" => Program::parse(rest).map(Self::Logger),
            _ => None,
        };
        target.ok_or_else(|| unknown("output", name))
    }
}

fn unknown(what: &str, name: &str) -> Error {
    Error::invalid_argument(format!("{name:?} is no {what} that this shim knows"))
}

fn path(text: &str) -> Option<PathBuf> {
    text.starts_with('/').then(|| PathBuf::from(text))
}

/// `/PATH?max-size=BYTES&max-file=COUNT`; in the path `%` and `?` are percent-encoded.
fn log(rest: &str, format: Format) -> Result<Option<Target>> {
    let (encoded, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut rotation = Rotation::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let invalid = || Error::invalid_argument(format!("log option {pair:?} is not understood"));
        let (key, value) = pair.split_once('=').ok_or_else(invalid)?;
        match key {
            "max-size" => rotation.max_size = Some(value.parse().map_err(|_| invalid())?),
            "max-file" => rotation.max_files = value.parse().map_err(|_| invalid())?,
            _ => return Err(invalid()),
        }
    }
    let path = decode(encoded).as_deref().and_then(path);
    Ok(path.map(|path| Target::Log(path, format, rotation)))
}

/// Undoes percent-encoding.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    #[test]
    fn names_of_outputs_are_understood() {
        let log = |path: &str, max_size, max_files| {
            Target::Log(path.into(), Format::Json, Rotation { max_size, max_files })
        };
        let program = |path: &str, args: &[&str]| {
            let args = args.iter().map(|arg| (*arg).to_owned()).collect();
            Target::Logger(Program { path: path.into(), args })
        };
        for (name, target) in [
            ("", Target::Null),
            ("attach:", Target::Attached),
            ("/run/fifo/1", Target::Fifo("/run/fifo/1".into())),
            ("fifo:///run/fifo/1", Target::Fifo("/run/fifo/1".into())),
            ("file:///var/log/a b", Target::File("/var/log/a b".into())),
            ("log+json-file:///a.log", log("/a.log", None, 1)),
            ("log+json-file:///a%3fb.log?max-size=1000&max-file=3", log("/a?b.log", Some(1000), 3)),
            ("log+cri:///a.log", Target::Log("/a.log".into(), Format::Cri, Rotation::default())),
            ("binary:///bin/log", program("/bin/log", &[])),
            (
                "binary:///bin/log?_LOG=%2fvar%2flog&text=a+b&flag",
                program("/bin/log", &["_LOG", "/var/log", "text", "a b", "flag", ""]),
            ),
        ] {
            assert_eq!(Target::parse(name).unwrap(), target, "{name}");
        }
    }

    #[test]
    fn names_of_inputs_are_understood() {
        for (name, source) in [
            ("", Source::Null),
            ("attach:once", Source::Attached { once: true }),
            ("attach:keep", Source::Attached { once: false }),
            ("/run/fifo/0", Source::Fifo("/run/fifo/0".into())),
        ] {
            assert_eq!(Source::parse(name).unwrap(), source, "{name}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "relative",
            "file://relative",
            "smb://host/share",
            "attach:once",
            "log+json-file:///a?max-size=big",
            "log+json-file:///a%f",
            "binary://relative",
            "binary:///a?b=%f",
        ] {
            assert_eq!(Target::parse(name).unwrap_err().kind(), Kind::InvalidArgument, "{name}");
        }
        assert!(Source::parse("file:///a").is_err());
    }
}
