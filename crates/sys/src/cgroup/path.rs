//! Where a cgroup is, as a specification says it.

use std::path::{Component, Path, PathBuf};

use berth_types::{Error, Result};

/// A checked path below a hierarchy: only names, none of them `..`, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CgroupPath {
    /// Whether it starts at the hierarchy's root, or at the caller's own cgroup.
    pub(super) absolute: bool,
    /// The names, joined; relative.
    pub(super) below: PathBuf,
}

impl CgroupPath {
    /// Checks `cgroupsPath`. `.` and doubled slashes are dropped.
    pub(super) fn parse(path: &Path) -> Result<Self> {
        let mut below = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => below.push(name),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(Error::invalid_argument(format!(
                        "the cgroup path {} has \"..\" in it: name the cgroup directly",
                        path.display()
                    )));
                }
            }
        }
        if below.as_os_str().is_empty() {
            return Err(Error::invalid_argument(format!(
                "the cgroup path {path:?} names no cgroup: give it at least one name"
            )));
        }
        Ok(Self { absolute: path.is_absolute(), below })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    #[test]
    fn dots_and_slashes_are_dropped() {
        let path = CgroupPath::parse(Path::new("//default/./a/")).unwrap();
        assert_eq!(path, CgroupPath { absolute: true, below: "default/a".into() });
        let path = CgroupPath::parse(Path::new("./a")).unwrap();
        assert_eq!(path, CgroupPath { absolute: false, below: "a".into() });
    }

    #[test]
    fn escapes_and_nothing_are_refused() {
        for bad in ["/../a", "a/../../b", "..", "/", "", "."] {
            let error = CgroupPath::parse(Path::new(bad)).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{bad}");
        }
    }
}
