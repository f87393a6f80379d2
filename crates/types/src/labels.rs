//! Labels: key and value pairs that clients put on records, and the ones with a meaning.
//!
//! The names are containerd's (`docs/garbage-collection.md`, `labels/labels.go` there), because
//! clients set and read them.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// The labels of one record, in order of their keys.
pub type Labels = BTreeMap<String, String>;

/// The longest key and value together, in bytes.
pub const MAX_LENGTH: usize = 4096;

/// On a layer's blob: the digest of its uncompressed bytes.
pub const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Prefix, with the registry's host: the repositories that a blob came from, comma-separated.
pub const DISTRIBUTION_SOURCE: &str = "containerd.io/distribution.source";
/// Keeps the record, whatever refers to it. The value is a time, for people.
pub const GC_ROOT: &str = "containerd.io/gc.root";
/// Prefix: a blob that this record keeps, by digest.
pub const GC_REF_CONTENT: &str = "containerd.io/gc.ref.content";
/// Prefix, with the snapshotter's name: a snapshot that this record keeps, by key.
pub const GC_REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot";
/// An RFC 3339 time after which a lease keeps nothing.
pub const GC_EXPIRE: &str = "containerd.io/gc.expire";
/// On a lease: it keeps its own resources but not what those refer to.
pub const GC_FLAT: &str = "containerd.io/gc.flat";
/// On a namespace: its default snapshotter.
pub const DEFAULT_SNAPSHOTTER: &str = "containerd.io/defaults/snapshotter";
/// On a namespace: its default runtime.
pub const DEFAULT_RUNTIME: &str = "containerd.io/defaults/runtime";

/// On a namespace: with the value `true`, its blobs are shared even where namespaces are isolated.
pub const SHAREABLE: &str = "containerd.io/namespace.shareable";

/// Checks one label by containerd's rule.
///
/// # Errors
/// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) when key and value together exceed
/// [`MAX_LENGTH`], and without a key.
pub fn validate(key: &str, value: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid_argument("a label must have a key"));
    }
    let length = key.len() + value.len();
    if length > MAX_LENGTH {
        let shown: String = key.chars().take(64).collect();
        return Err(Error::invalid_argument(format!(
            "label {shown:?} and its value are {length} bytes long, the most is {MAX_LENGTH}"
        )));
    }
    Ok(())
}
