//! Which hierarchies are mounted where, and where in them the caller is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use berth_types::{Error, Result, ResultExt};

use super::Controller;
use super::path::CgroupPath;

/// How the machine has its control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Hierarchies of v1 only.
    V1,
    /// Hierarchies of v1, and a v2 one beside them. Limits are those of v1.
    Hybrid,
    /// The unified hierarchy only.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// The caller's own cgroup, as a path below `mount`; empty at its top.
    pub(super) own: PathBuf,
}

impl Hierarchy {
    /// The directory of `path`.
    pub(super) fn directory(&self, path: &CgroupPath) -> PathBuf {
        match path.absolute {
            true => self.mount.join(&path.below),
            false => self.mount.join(&self.own).join(&path.below),
        }
    }
}

/// All mounted hierarchies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    pub(super) v1: BTreeMap<Controller, Hierarchy>,
    pub(super) v2: Option<Hierarchy>,
}

impl Hierarchies {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup` (cgroups(7), proc(5)).
    pub fn discover() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).context(|| format!("read {path}"));
        let found = Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        if found.v1.is_empty() && found.v2.is_none() {
            return Err(Error::failed_precondition(
                "no cgroup file system is mounted: mount cgroup2 at /sys/fs/cgroup",
            ));
        }
        Ok(found)
    }

    /// What is mounted.
    pub fn version(&self) -> Version {
        match (self.v1.is_empty(), &self.v2) {
            (true, _) => Version::V2,
            (false, Some(_)) => Version::Hybrid,
            (false, None) => Version::V1,
        }
    }

    fn parse(mountinfo: &str, own: &str) -> Self {
        let mut found = Self::default();
        for mount in mountinfo.lines().filter_map(CgroupMount::parse) {
            if mount.kind == "cgroup2" {
                let own = own_path(own, None, &mount.root);
                found.v2.get_or_insert(Hierarchy { mount: mount.point, own });
                continue;
            }
            for name in mount.options.split(',') {
                if let Some(controller) = Controller::from_v1(name) {
                    let own = own_path(own, Some(name), &mount.root);
                    let hierarchy = Hierarchy { mount: mount.point.clone(), own };
                    found.v1.entry(controller).or_insert(hierarchy);
                }
            }
        }
        found
    }
}

/// A line of mountinfo that mounts cgroups.
struct CgroupMount<'a> {
    kind: &'a str,
    /// The cgroup that is at the top of the mount.
    root: PathBuf,
    point: PathBuf,
    options: &'a str,
}

impl<'a> CgroupMount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let kind = right.next().filter(|kind| matches!(*kind, "cgroup" | "cgroup2"))?;
        let options = right.nth(1)?;
        Some(Self { kind, root: unescape(root), point: unescape(point), options })
    }
}

/// Undoes mountinfo's octal escapes of blanks and backslashes.
fn unescape(text: &str) -> PathBuf {
    let pairs = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)))
}

/// The caller's cgroup in the hierarchy of `controller` (`None`: v2), below a mount whose top is
/// `root`. A caller outside of what the mount shows counts as being at its top.
fn own_path(own: &str, controller: Option<&str>, root: &Path) -> PathBuf {
    let line = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let here = match controller {
            Some(name) => names.split(',').any(|other| other == name),
            None => id == "0" && names.is_empty(),
        };
        here.then_some(Path::new(path))
    });
    let below = line.and_then(|path| path.strip_prefix(root).ok()).unwrap_or(Path::new(""));
    let outside = below.components().any(|part| part == std::path::Component::ParentDir);
    if outside { PathBuf::new() } else { below.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 /docker/x /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_with_controllers_mounted_together_and_a_bound_subtree() {
        let own = "5:name=systemd:/s\n4:memory:/m/n\n2:cpu,cpuacct:/docker/x/y\n0::/u\n";
        let found = Hierarchies::parse(HYBRID, own);
        assert_eq!(found.version(), Version::Hybrid);
        assert_eq!(found.v1.len(), 3);
        assert_eq!(found.v1[&Controller::Cpuacct].own, Path::new("y"));
        assert_eq!(found.v1[&Controller::Cpu], found.v1[&Controller::Cpuacct]);
        let relative = CgroupPath { absolute: false, below: "c".into() };
        let memory = &found.v1[&Controller::Memory];
        assert_eq!(memory.directory(&relative), Path::new("/sys/fs/cgroup/memory/m/n/c"));
        assert_eq!(found.v2.unwrap().own, Path::new("u"));
    }

    #[test]
    fn unified_with_a_caller_outside_its_cgroup_namespace() {
        let mountinfo = "30 23 0:26 / /sys/fs/my\\040cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchies::parse(mountinfo, "0::/../../outside\n");
        assert_eq!(found.version(), Version::V2);
        let v2 = found.v2.unwrap();
        assert_eq!(v2.mount, Path::new("/sys/fs/my cgroup"));
        assert_eq!(v2.own, Path::new(""));
    }

    #[test]
    fn this_machine_has_cgroups() {
        let found = Hierarchies::discover().unwrap();
        for hierarchy in found.v1.values().chain(&found.v2) {
            assert!(hierarchy.mount.join("cgroup.procs").exists(), "{hierarchy:?}");
        }
    }
}
