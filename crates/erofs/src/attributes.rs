//! Extended attributes, as they follow an inode.
//!
//! ```text
//! erofs_xattr_ibody_header (12 bytes)
//!   0  h_name_filter   zero: only with EROFS_FEATURE_COMPAT_XATTR_FILTER it means something
//!   4  h_shared_count  zero: none is shared with other inodes
//!   5  h_reserved2
//! erofs_xattr_entry, for each attribute, padded to 4 bytes
//!   0  e_name_len
//!   1  e_name_index    the name's prefix, EROFS_XATTR_INDEX_*
//!   2  e_value_size
//!   4  e_name          the rest of the name, then the value
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use berth_archive::{Entry, EntryKind, Xattr, shown};
use berth_types::{Error, Result};

/// The size of the header.
const HEADER: usize = 12;

/// The size of an entry before its name.
const ENTRY: usize = 4;

/// What all attributes of an inode may take: their length is counted in 16 bits.
const MAX_ENCODED: usize = HEADER + 4 * (u16::MAX as usize - 1);

/// What the attributes of all directories, which wait for the end in memory, may take.
const MAX_KEPT: usize = 16 << 20;

/// The longest name, without and with its prefix (`xattr(7)`).
const MAX_NAME: usize = 255;

/// Prefixes of names, and their EROFS_XATTR_INDEX_USER, _TRUSTED and _SECURITY.
const PREFIXES: [(&str, u8); 3] = [("user.", 1), ("trusted.", 4), ("security.", 6)];

/// Names that are their own prefix: EROFS_XATTR_INDEX_POSIX_ACL_ACCESS and _DEFAULT.
const WHOLE: [(&str, u8); 2] = [("system.posix_acl_access", 2), ("system.posix_acl_default", 3)];

/// The attribute by which a directory hides what lower layers have in it.
const OPAQUE: (&str, &[u8]) = ("trusted.overlay.opaque", b"y");

/// The attributes of `entry`; empty for none. Those that the kind of file can't have are left out,
/// as where the layer becomes a directory.
///
/// # Errors
/// InvalidArgument for attributes that no filesystem takes.
pub(crate) fn encode(entry: &Entry) -> Result<Vec<u8>> {
    let mut encoded = Vec::new();
    let user = matches!(entry.kind, EntryKind::File | EntryKind::Directory);
    for xattr in &entry.xattrs {
        if !user && xattr.name.starts_with("user.") {
            let path = shown(&entry.path);
            tracing::warn!(path, attribute = xattr.name, "attribute left out");
            continue;
        }
        push(&mut encoded, xattr).map_err(|why| {
            entry.refused(&format!("its attribute {:?} can't be set: {why}", xattr.name))
        })?;
    }
    Ok(encoded)
}

/// The attributes of a directory that is already on a filesystem.
///
/// # Errors
/// Internal for those that no filesystem has.
pub(crate) fn of_directory(xattrs: &[Xattr]) -> Result<Vec<u8>> {
    let mut encoded = Vec::new();
    for xattr in xattrs {
        push(&mut encoded, xattr).map_err(|why| {
            Error::internal(format!("take the attribute {:?} over: {why}", xattr.name))
        })?;
    }
    Ok(encoded)
}

/// The attributes in `old`, replaced and joined by those in `new`.
pub(crate) fn merge(old: &[u8], new: &[u8]) -> Vec<u8> {
    if old.is_empty() || new.is_empty() {
        return [old, new].concat();
    }
    let replaced = |entry: &&[u8]| entries(new).any(|other| key(other) == key(entry));
    let mut merged = old[..HEADER].to_vec();
    for entry in entries(old).filter(|entry| !replaced(entry)).chain(entries(new)) {
        merged.extend_from_slice(entry);
    }
    merged
}

/// The attributes in `old` and the one that makes a directory opaque.
pub(crate) fn with_opaque(old: &[u8]) -> Vec<u8> {
    let mut opaque = Vec::new();
    // It is valid and short.
    let _ = push(&mut opaque, &Xattr { name: OPAQUE.0.to_owned(), value: OPAQUE.1.to_vec() });
    merge(old, &opaque)
}

fn push(encoded: &mut Vec<u8>, xattr: &Xattr) -> Result<(), &'static str> {
    let (index, name) = split(&xattr.name).ok_or("no filesystem has its like")?;
    check(index, name, &xattr.value)?;
    let size = u16::try_from(xattr.value.len()).map_err(|_| "its value is too long")?;
    if encoded.is_empty() {
        encoded.resize(HEADER, 0);
    }
    encoded.push(name.len() as u8);
    encoded.push(index);
    encoded.extend_from_slice(&size.to_le_bytes());
    encoded.extend_from_slice(name.as_bytes());
    encoded.extend_from_slice(&xattr.value);
    encoded.resize(encoded.len().next_multiple_of(4), 0);
    match encoded.len() <= MAX_ENCODED {
        true => Ok(()),
        false => Err("there are too many"),
    }
}

/// Splits a name in the number of its prefix and the rest.
fn split(name: &str) -> Option<(u8, &str)> {
    if let Some((_, index)) = WHOLE.iter().find(|(whole, _)| *whole == name) {
        return Some((*index, ""));
    }
    let mut prefixes = PREFIXES.iter();
    let found = prefixes.find_map(|(prefix, index)| Some((*index, name.strip_prefix(prefix)?)));
    found.filter(|(_, rest)| !rest.is_empty() && name.len() <= MAX_NAME && !rest.contains('\0'))
}

/// Refuses values that the kernel refuses to set.
fn check(index: u8, name: &str, value: &[u8]) -> Result<(), &'static str> {
    let version = value.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    match (index, name) {
        // `vfs_cap_data` of `linux/capability.h`: revision 2 or 3, perhaps with the flag
        // VFS_CAP_FLAGS_EFFECTIVE.
        (6, "capability") => match (version.map(|version| version & !1), value.len()) {
            (Some(0x0200_0000), 20) | (Some(0x0300_0000), 24) => Ok(()),
            _ => Err("these are no capabilities"),
        },
        // `posix_acl_xattr_header` of `linux/posix_acl_xattr.h`: version 2, entries of 8 bytes.
        (2 | 3, _) if version != Some(2) || value.len() % 8 != 4 => Err("this is no access list"),
        _ => Ok(()),
    }
}

/// The entries of encoded attributes.
fn entries(encoded: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = encoded.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [name, _, low, high] = *rest.first_chunk::<ENTRY>()?;
        let length = ENTRY + usize::from(name) + usize::from(u16::from_le_bytes([low, high]));
        let (entry, behind) = rest.split_at(length.next_multiple_of(4));
        rest = behind;
        Some(entry)
    })
}

/// What names an entry: its prefix and the rest of its name.
fn key(entry: &[u8]) -> (u8, &[u8]) {
    (entry[1], &entry[ENTRY..ENTRY + usize::from(entry[0])])
}

/// The attributes of directories, those that are equal once.
#[derive(Default)]
pub(crate) struct Sets {
    sets: Vec<Arc<[u8]>>,
    ids: HashMap<Arc<[u8]>, u32>,
    kept: usize,
}

impl Sets {
    /// The number of no attributes.
    pub(crate) const NONE: u32 = 0;

    /// The attributes with this number.
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        id.checked_sub(1).map_or(&[], |at| &self.sets[at as usize])
    }

    /// The number of `encoded` attributes.
    ///
    /// # Errors
    /// ResourceExhausted when they are too many.
    pub(crate) fn keep(&mut self, encoded: &[u8]) -> Result<u32> {
        if encoded.is_empty() {
            return Ok(Self::NONE);
        }
        if let Some(id) = self.ids.get(encoded) {
            return Ok(*id);
        }
        self.kept += encoded.len();
        if self.kept > MAX_KEPT || encoded.len() > MAX_ENCODED {
            return Err(Error::resource_exhausted(format!(
                "the attributes of the layer's directories are too many, over {MAX_KEPT} bytes"
            )));
        }
        let set: Arc<[u8]> = encoded.into();
        self.sets.push(set.clone());
        let id = self.sets.len() as u32;
        self.ids.insert(set, id);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(xattrs: &[(&str, &[u8])]) -> Vec<u8> {
        let mut encoded = Vec::new();
        for (name, value) in xattrs {
            let xattr = Xattr { name: (*name).to_owned(), value: value.to_vec() };
            push(&mut encoded, &xattr).expect(name);
        }
        encoded
    }

    #[test]
    fn later_attributes_replace_earlier_ones() {
        let old = encoded(&[("user.a", b"1"), ("trusted.a", b"22"), ("user.b", b"333")]);
        let new = encoded(&[("user.c", b""), ("trusted.a", b"x")]);
        let merged =
            [("user.a", &b"1"[..]), ("user.b", b"333"), ("user.c", b""), ("trusted.a", b"x")];
        assert_eq!(merge(&old, &new), encoded(&merged));
        assert_eq!(merge(&old, &[]), old);
        assert_eq!(merge(&[], &new), new);
    }

    #[test]
    fn what_no_filesystem_takes_is_refused() {
        let long = format!("user.{}", "x".repeat(251));
        for (name, value) in [
            ("user.", &b"x"[..]),
            ("other.x", b"x"),
            ("system.other", b"x"),
            ("user.a\0b", b"x"),
            (&*long, b"x"),
            ("user.long", &[0; 65536]),
            ("security.capability", b"x"),
            ("system.posix_acl_access", b"x"),
        ] {
            let xattr = Xattr { name: name.to_owned(), value: value.to_vec() };
            assert!(push(&mut Vec::new(), &xattr).is_err(), "{name}");
        }
    }
}
