//! What a member means for the tree: itself, or what lower layers no longer have (OCI image
//! specification, `layer.md`, "Whiteouts"). Every writer of trees asks here, so that a layer means
//! the same to all of them.

use berth_types::Result;

use crate::entry::{Entry, EntryKind, refused, split};

/// What the names of whiteouts begin with.
const PREFIX: &[u8] = b".wh.";

/// The whiteout of all that lower layers have in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the names of AUFS's own files begin with.
const AUFS: &[u8] = b".wh..wh.";

/// What a member means for the tree. Paths are as [`Entry::path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// It is the root, a directory.
    Root,
    /// It is the file `name` in the directory `parent`.
    Member {
        /// The directory that holds it.
        parent: &'a [u8],
        /// Its name there.
        name: &'a [u8],
    },
    /// Lower layers' `name` in the directory `parent` is gone.
    Whiteout {
        /// The directory that holds it.
        parent: &'a [u8],
        /// The name that is gone.
        name: &'a [u8],
    },
    /// All that lower layers have in the directory `parent` is gone.
    Opaque {
        /// The directory.
        parent: &'a [u8],
    },
    /// It means nothing: AUFS's own files are passed over, as by other readers.
    Nothing,
}

impl Entry {
    /// What the member means for the tree.
    ///
    /// # Errors
    /// InvalidArgument for a whiteout of nothing, a member inside of a whiteout, a root that is no
    /// directory, and attributes by which an archive would speak to overlayfs in our name.
    pub fn role(&self) -> Result<Role<'_>> {
        let (parent, name) = split(&self.path);
        if parent.split(|byte| *byte == b'/').any(|name| name.starts_with(PREFIX)) {
            return match self.path.starts_with(AUFS) {
                true => Ok(Role::Nothing),
                false => Err(refused(&self.path, "it lies in a whiteout")),
            };
        }
        if let Some(hidden) = name.strip_prefix(PREFIX) {
            return self.whiteout(parent, name, hidden);
        }
        self.check_xattrs()?;
        match name.is_empty() {
            false => Ok(Role::Member { parent, name }),
            true if self.kind == EntryKind::Directory => Ok(Role::Root),
            true => Err(refused(&self.path, "the root can only be a directory")),
        }
    }

    fn whiteout<'a>(&self, parent: &'a [u8], name: &'a [u8], hidden: &'a [u8]) -> Result<Role<'a>> {
        match hidden {
            _ if name == OPAQUE => Ok(Role::Opaque { parent }),
            _ if name.starts_with(AUFS) => Ok(Role::Nothing),
            b"" | b"." | b".." => {
                Err(refused(&self.path, "it is a whiteout of nothing in its directory"))
            }
            name => Ok(Role::Whiteout { parent, name }),
        }
    }

    fn check_xattrs(&self) -> Result<()> {
        match self.xattrs.iter().find(|xattr| xattr.name.starts_with("trusted.overlay.")) {
            Some(xattr) => Err(refused(
                &self.path,
                &format!("the attribute {:?} is overlayfs's own", xattr.name),
            )),
            None => Ok(()),
        }
    }
}
