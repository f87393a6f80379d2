//! Reading extended attributes.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::entry::Xattr;

/// The longest list of attributes, and the longest value, that the kernel has (`xattr(7)`).
const MAX_SIZE: usize = 64 << 10;

/// Overlayfs's own attributes, which mean nothing in another tree.
const OVERLAY: &[u8] = b"trusted.overlay.";

/// The attributes of an open file, without those of overlayfs.
///
/// # Errors
/// Those of the filesystem.
pub fn xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    let mut found = Vec::new();
    for name in list(file)? {
        let value = get(file, &name)?;
        // The kernel has no others.
        let Ok(name) = String::from_utf8(name) else { continue };
        found.push(Xattr { name, value });
    }
    Ok(found)
}

/// The names of the attributes of an open file, in order, without those of overlayfs; none where
/// the filesystem has no attributes.
///
/// # Errors
/// Those of `flistxattr(2)`.
pub(crate) fn list(file: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    names(|list| rustix::fs::flistxattr(file, spare_capacity(list)))
}

/// As [`list`], of the file at `path`, which is not followed.
///
/// # Errors
/// Those of `llistxattr(2)`.
pub(crate) fn list_at(path: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
    names(|list| rustix::fs::llistxattr(path, spare_capacity(list)))
}

fn names(read: impl FnOnce(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut list = Vec::with_capacity(MAX_SIZE);
    match read(&mut list) {
        Ok(_) | Err(Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno),
    }
    let names = list.split(|byte| *byte == 0);
    let mut names: Vec<_> = names
        .filter(|name| !name.is_empty() && !name.starts_with(OVERLAY))
        .map(<[u8]>::to_vec)
        .collect();
    names.sort();
    Ok(names)
}

/// The value of an attribute of an open file.
///
/// # Errors
/// Those of `fgetxattr(2)`.
pub(crate) fn get(file: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut value = Vec::with_capacity(MAX_SIZE);
    rustix::fs::fgetxattr(file, name, spare_capacity(&mut value))?;
    Ok(value)
}

/// As [`get`], of the file at `path`, which is not followed.
///
/// # Errors
/// Those of `lgetxattr(2)`.
pub(crate) fn get_at(path: &[u8], name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut value = Vec::with_capacity(MAX_SIZE);
    rustix::fs::lgetxattr(path, name, spare_capacity(&mut value))?;
    Ok(value)
}
