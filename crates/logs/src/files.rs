//! The names of a rotated log's files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The file that was current `age` rotations ago.
pub(crate) fn aged(path: &Path, age: u32) -> PathBuf {
    if age == 0 {
        return path.to_owned();
    }
    let mut name = OsString::from(path);
    name.push(format!(".{age}"));
    PathBuf::from(name)
}
