//! Reading a bundle's `config.json`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use berth_types::spec::Spec;
use berth_types::{Error, Result, ResultExt};
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;

/// No spec that anybody means is larger, in bytes.
const MAX: u64 = 16 << 20;

/// The spec in the file at `path`.
///
/// # Errors
/// InvalidArgument when there is no such file, it is too large, or it is no spec: then with the
/// place and the field that is wrong.
pub fn read_spec(path: &Path) -> Result<Spec> {
    let invalid = |why: String| Error::invalid_argument(format!("{}: {why}", path.display()));
    // A FIFO in its place must not make this wait.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| invalid(error.to_string()))?;
    let mut text = Vec::new();
    let what = || format!("read {}", path.display());
    let length = file.take(MAX + 1).read_to_end(&mut text).context(what)?;
    if length as u64 > MAX {
        return Err(invalid(format!("a spec of more than {} MiB is refused", MAX >> 20)));
    }
    parse(&text).map_err(|error| error.context(path.display()))
}

/// Reads a document of the specification's.
///
/// # Errors
/// InvalidArgument, with the field that is wrong.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    // A list would be taken for the fields in their order.
    if text.trim_ascii_start().first() == Some(&b'[') {
        return Err(Error::invalid_argument("expected an object and not a list"));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let document = serde_path_to_error::deserialize(&mut reader);
    let document = document.map_err(|error| Error::invalid_argument(error.to_string()))?;
    reader.end().map_err(|error| Error::invalid_argument(error.to_string()))?;
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("{}}", "trailing"),
            ("no spec", "expected"),
            (" []", "object"),
            (r#"{"process":{"user":{"uid":-1}}}"#, "process.user.uid"),
            (r#"{"process":{"user":{"uid":4294967296}}}"#, "process.user.uid"),
            (r#"{"process":{"rlimits":[{"type":"a","soft":-1}]}}"#, "process.rlimits[0].soft"),
            (r#"{"linux":{"resources":{"memory":{"limit":"1"}}}}"#, "linux.resources.memory.limit"),
            (r#"{"mounts":{}}"#, "mounts"),
        ] {
            let error = parse::<Spec>(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.message().contains(words), "{error}");
        }
    }

    #[test]
    fn an_endless_spec_is_refused() {
        let error = read_spec(Path::new("/dev/zero")).unwrap_err();
        assert!(error.message().contains("16 MiB"), "{error}");
        assert_eq!(read_spec(Path::new("/nowhere")).unwrap_err().kind(), Kind::InvalidArgument);
    }
}
