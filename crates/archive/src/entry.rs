//! One member of a layer's archive, with all that its headers say already resolved.

use berth_types::{Error, Result};

/// A point in time: seconds since 1970, perhaps negative, and nanoseconds after that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds since 1970-01-01 UTC, rounded down.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: i64,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// The name with its namespace, `user.mime_type`.
    pub name: String,
    /// Any bytes.
    pub value: Vec<u8>,
}

/// A member of an archive. Paths are relative to the root that they are for, their components
/// joined by single slashes; they hold no `.` and no `..`, but symbolic links in the tree may
/// still lead anywhere.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it goes; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with set-user-ID, set-group-ID and sticky bit.
    pub mode: u32,
    /// Owner, never `u32::MAX`.
    pub uid: u32,
    /// Group, never `u32::MAX`.
    pub gid: u32,
    /// Last modification.
    pub mtime: Time,
    /// Extended attributes.
    pub xattrs: Vec<Xattr>,
    /// Length of a file with its holes, in bytes; 0 for the other kinds.
    pub size: u64,
}

impl Entry {
    /// An InvalidArgument error that says why the member is refused.
    pub fn refused(&self, why: &str) -> Error {
        refused(&self.path, why)
    }
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// Another name of the member at this path.
    HardLink(Vec<u8>),
    /// A symbolic link with this text.
    Symlink(Vec<u8>),
    /// A directory.
    Directory,
    /// A character device.
    CharacterDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Up to 12 bits.
    pub major: u32,
    /// Up to 20 bits.
    pub minor: u32,
}

/// Splits a path in its parent and its last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// A member's name as an [`Entry::path`]. As GNU tar does, leading slashes are dropped and names
/// with `..` refused.
///
/// # Errors
/// InvalidArgument for `..` and for NUL bytes.
pub(crate) fn normalise(name: &[u8]) -> Result<Vec<u8>> {
    let mut path = Vec::with_capacity(name.len());
    for component in name.split(|byte| *byte == b'/') {
        if component == b".." || component.contains(&0) {
            return Err(refused(name, "its name has a component '..' or a NUL byte"));
        }
        if !component.is_empty() && component != b"." {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
    }
    Ok(path)
}

/// An InvalidArgument error about the member called `name`.
pub(crate) fn refused(name: &[u8], why: &str) -> Error {
    Error::invalid_argument(format!("the layer's member {} is refused: {why}", shown(name)))
}

/// The name of a member for a message: quoted, escaped and shortened.
pub fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_and_plain() {
        let cases: [(&str, Option<&str>); 7] = [
            ("a/b", Some("a/b")),
            ("./a//b/", Some("a/b")),
            ("/a/./b", Some("a/b")),
            ("./", Some("")),
            ("a/..b", Some("a/..b")),
            ("a/../b", None),
            ("a\0b", None),
        ];
        for (name, path) in cases {
            let expected = path.map(|path| path.as_bytes().to_vec());
            assert_eq!(normalise(name.as_bytes()).ok(), expected, "{name}");
        }
    }
}
