//! The trees that a client's mounts stand for.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;

use berth_proto::containerd::types::Mount;
use berth_sys::mount;
use berth_types::{Error, Result, ResultExt};

/// The directories behind mounts: what a snapshotter gives is one bind mount or one overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// Where changes go; none for a tree that is only read.
    pub(super) upper: Option<PathBuf>,
    /// What is below, the uppermost first.
    pub(super) lowers: Vec<PathBuf>,
    /// The options of an overlay, to mount it with.
    options: Option<Vec<String>>,
}

impl Tree {
    /// The tree behind `mounts`; `None` without any.
    ///
    /// # Errors
    /// `Unimplemented` for mounts that are no bind mount and no overlay, or several;
    /// `InvalidArgument` when a path is not absolute.
    pub(super) fn of(mounts: &[Mount]) -> Result<Option<Self>> {
        let mount = match mounts {
            [] => return Ok(None),
            [mount] => mount,
            _ => return Err(Error::unimplemented("several mounts for one tree are not supported")),
        };
        let tree = match mount.r#type.as_str() {
            "bind" | "rbind" => Self::of_bind(mount),
            "overlay" => Self::of_overlay(mount),
            other => {
                return Err(Error::unimplemented(format!(
                    "mounts of type {other:?} are not supported: use bind or overlay"
                )));
            }
        };
        for path in tree.upper.iter().chain(&tree.lowers) {
            if !path.is_absolute() {
                let path = path.display();
                return Err(Error::invalid_argument(format!("mount path {path} is not absolute")));
            }
        }
        Ok(Some(tree))
    }

    /// The tree of no mounts, which has nothing and takes nothing.
    pub(super) fn nothing() -> Self {
        Self { upper: None, lowers: Vec::new(), options: None }
    }

    /// Whether this read-only tree is what `other` writes on top of, so that the upper directory
    /// of `other` is all their difference.
    pub(super) fn is_below(&self, other: &Tree) -> bool {
        self.upper.is_none() && !self.lowers.is_empty() && self.lowers == other.lowers
    }

    fn of_bind(mount: &Mount) -> Self {
        let source = PathBuf::from(&mount.source);
        let read_only = mount.options.iter().any(|option| option == "ro");
        let (upper, lowers) =
            if read_only { (None, vec![source]) } else { (Some(source), Vec::new()) };
        Self { upper, lowers, options: None }
    }

    fn of_overlay(mount: &Mount) -> Self {
        let value = |key| mount.options.iter().find_map(|option| option.strip_prefix(key));
        Self {
            upper: value("upperdir=").map(PathBuf::from),
            lowers: value("lowerdir=").unwrap_or_default().split(':').map(PathBuf::from).collect(),
            options: Some(mount.options.clone()),
        }
    }

    /// Opens the tree as a whole, for reading; an overlay as a detached mount.
    ///
    /// # Errors
    /// Those of mounting and of the disk.
    pub(super) fn open(&self) -> Result<OwnedFd> {
        let Some(options) = &self.options else {
            let path = self.upper.iter().chain(&self.lowers).next();
            let path = path.ok_or_else(|| Error::invalid_argument("a mount has no source"))?;
            return open(path);
        };
        // The tree is only read, and the work directory may be in use by a mount of the client's:
        // what was the upper directory is the uppermost layer here.
        let layers = self.upper.iter().chain(&self.lowers);
        let layers: Vec<_> = layers.map(|layer| layer.display().to_string()).collect();
        if let [only] = layers.as_slice() {
            return open(Path::new(only));
        }
        let kept = ["upperdir=", "workdir=", "lowerdir="];
        let mut read_only: Vec<_> = options
            .iter()
            .map(String::as_str)
            .filter(|option| !kept.iter().any(|key| option.starts_with(key)))
            .filter(|option| *option != "volatile")
            .collect();
        let lower = format!("lowerdir={}", layers.join(":"));
        read_only.push(&lower);
        mount::overlay(&read_only, MountAttrFlags::MOUNT_ATTR_RDONLY)
            .context(|| "mount an overlay to read")?
            .ok_or_else(|| {
                Error::unimplemented("this kernel can't mount so many layers detached (6.8 can)")
            })
    }
}

/// Opens a directory.
///
/// # Errors
/// `NotFound`, and others of the disk.
pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => Ok(directory),
        Err(rustix::io::Errno::NOENT) => {
            Err(Error::not_found(format!("mount source {} does not exist", path.display())))
        }
        Err(errno) => {
            Err(Error::io(format!("open mount source {}", path.display()), &errno.into()))
        }
    }
}

/// Writes what is cached of the filesystem that `directory` is on.
///
/// # Errors
/// Those of the disk.
pub(super) fn sync(directory: OwnedFd) -> Result<()> {
    let directory = File::from(directory);
    rustix::fs::syncfs(&directory).map_err(std::io::Error::from).context(|| "sync the filesystem")
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        Mount {
            r#type: kind.into(),
            source: source.into(),
            target: String::new(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        }
    }

    #[test]
    fn a_tree_is_what_its_mounts_read_and_write() {
        let of = |mount| Tree::of(&[mount]).unwrap().unwrap();
        let bind = of(mount("bind", "/a", &["rw", "rbind"]));
        assert_eq!((bind.upper, bind.lowers), (Some("/a".into()), vec![]));
        let view = of(mount("bind", "/a", &["ro", "rbind"]));
        assert_eq!((view.upper, view.lowers), (None, vec!["/a".into()]));
        let overlay =
            of(mount("overlay", "overlay", &["workdir=/w", "upperdir=/u", "lowerdir=/b:/a"]));
        assert_eq!(overlay.upper, Some("/u".into()));
        assert_eq!(overlay.lowers, [PathBuf::from("/b"), PathBuf::from("/a")]);
        assert_eq!(Tree::of(&[]).unwrap(), None);
    }

    #[test]
    fn other_mounts_are_refused() {
        for (mount, kind) in [
            (mount("ext4", "/dev/sda", &[]), Kind::Unimplemented),
            (mount("bind", "relative", &[]), Kind::InvalidArgument),
            (mount("overlay", "overlay", &["upperdir=/u"]), Kind::InvalidArgument),
        ] {
            assert_eq!(Tree::of(&[mount]).unwrap_err().kind(), kind);
        }
    }
}
