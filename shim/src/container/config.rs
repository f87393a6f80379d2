//! Reading a bundle's `config.json`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use berth_types::spec::Spec;
use berth_types::{Error, Result, ResultExt};

/// No spec that anybody means is larger, in bytes.
const MAX: u64 = 16 << 20;

/// The spec in the file at `path`.
///
/// # Errors
/// InvalidArgument when there is no such file, it is too large, or it is no spec: then with the
/// place and the field that is wrong.
pub fn read_spec(path: &Path) -> Result<Spec> {
    let invalid = |why: String| Error::invalid_argument(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| invalid(error.to_string()))?;
    let mut text = Vec::new();
    let what = || format!("read {}", path.display());
    let length = file.take(MAX + 1).read_to_end(&mut text).context(what)?;
    if length as u64 > MAX {
        return Err(invalid(format!("a spec of more than {} MiB is refused", MAX >> 20)));
    }
    serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))
}
