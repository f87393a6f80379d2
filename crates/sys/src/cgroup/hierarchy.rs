//! Which hierarchies are mounted where, and where in them the caller is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use berth_types::{Error, Result, ResultExt};

use super::Controller;
use super::path::CgroupPath;

/// Where distributions mount them.
const USUAL: &str = "/sys/fs/cgroup";

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
    /// Reads `/proc/self/cgroup`, and `/proc/self/mountinfo` unless all hierarchies are where
    /// they usually are: each container adds a dozen lines to that (cgroups(7), proc(5)).
    pub fn discover() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).context(|| format!("read {path}"));
        let own = read("/proc/self/cgroup")?;
        if let Some(found) = Self::usual(Path::new(USUAL), &own) {
            return Ok(found);
        }
        let found = Self::parse(&read("/proc/self/mountinfo")?, &own);
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

    /// Every hierarchy that `own` lists, at its usual place below `directory`, with the hierarchy's
    /// root at the top; `None` unless all are found so.
    fn usual(directory: &Path, own: &str) -> Option<Self> {
        let mut found = Self::default();
        for line in own.lines() {
            let (_, names, path) = own_fields(line)?;
            let own = Path::new(path).strip_prefix("/").ok()?.to_owned();
            if climbs(&own) {
                return None;
            }
            if names.is_empty() {
                let places = [directory.to_owned(), directory.join("unified")];
                let mut tops = places.into_iter().filter(|place| is_top_of_v2(place));
                found.v2 = Some(Hierarchy { mount: tops.next()?, own });
                continue;
            }
            let controllers: Vec<_> = names.split(',').filter_map(Controller::from_v1).collect();
            let mount = directory.join(names);
            if !controllers.is_empty() && !is_top_of_v1(&mount) {
                return None;
            }
            let hierarchy = Hierarchy { mount, own };
            let places = controllers.into_iter().map(|controller| (controller, hierarchy.clone()));
            found.v1.extend(places);
        }
        (!found.v1.is_empty() || found.v2.is_some()).then_some(found)
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

/// Whether `directory` is the root of a v1 hierarchy: nothing else has this file.
fn is_top_of_v1(directory: &Path) -> bool {
    directory.join("release_agent").exists()
}

/// Whether `directory` is the root of the v2 hierarchy: all below it have a type.
fn is_top_of_v2(directory: &Path) -> bool {
    directory.join("cgroup.controllers").exists() && !directory.join("cgroup.type").exists()
}

/// The number, the controllers and the path of a line of `/proc/self/cgroup`.
fn own_fields(line: &str) -> Option<(&str, &str, &str)> {
    let mut fields = line.splitn(3, ':');
    Some((fields.next()?, fields.next()?, fields.next()?))
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
        let (id, names, path) = own_fields(line)?;
        let here = match controller {
            Some(name) => names.split(',').any(|other| other == name),
            None => id == "0" && names.is_empty(),
        };
        here.then_some(Path::new(path))
    });
    let below = line.and_then(|path| path.strip_prefix(root).ok()).unwrap_or(Path::new(""));
    if climbs(below) { PathBuf::new() } else { below.to_owned() }
}

/// Whether `path` leads out of where it starts: the caller is outside its cgroup namespace.
fn climbs(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
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
    fn usual_places_are_taken_only_if_all_hierarchies_are_there_from_their_roots() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let touch = |name: &str| {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "").unwrap();
        };
        let usual = |own| Hierarchies::usual(directory.path(), own);
        touch("cpu,cpuacct/release_agent");
        let found = usual("3:name=elogind:/1\n2:cpu,cpuacct:/a/b\n").unwrap();
        assert_eq!(found.version(), Version::V1);
        assert_eq!(found.v1[&Controller::Cpu].mount, at("cpu,cpuacct"));
        assert_eq!(found.v1[&Controller::Cpuacct].own, Path::new("a/b"));
        // One that is elsewhere, and one whose top is not its root.
        let both = "4:memory:/\n2:cpu,cpuacct:/\n";
        assert_eq!(usual(both), None);
        touch("memory/cgroup.procs");
        assert_eq!(usual(both), None);
        touch("memory/release_agent");
        assert_eq!(usual(both).unwrap().v1.len(), 3);

        assert_eq!(usual("0::/\n"), None);
        touch("unified/cgroup.controllers");
        let found = usual("2:cpu,cpuacct:/\n0::/x\n").unwrap();
        assert_eq!(found.version(), Version::Hybrid);
        assert_eq!(found.v2.unwrap().mount, at("unified"));
        touch("cgroup.controllers");
        let found = usual("0::/x\n").unwrap();
        assert_eq!(found.version(), Version::V2);
        assert_eq!(found.v2.unwrap(), Hierarchy { mount: at(""), own: "x".into() });
        touch("cgroup.type");
        touch("unified/cgroup.type");
        assert_eq!(usual("0::/x\n"), None);
        // A caller outside its cgroup namespace's root.
        fs::remove_file(at("cgroup.type")).unwrap();
        assert_eq!(usual("0::/../x\n"), None);
    }

    #[test]
    fn usual_places_and_the_table_of_mounts_agree() {
        let read = |path| fs::read_to_string(path).unwrap();
        let own = read("/proc/self/cgroup");
        let parsed = Hierarchies::parse(&read("/proc/self/mountinfo"), &own);
        if let Some(found) = Hierarchies::usual(Path::new(USUAL), &own) {
            assert_eq!(found, parsed);
        }
    }

    #[test]
    fn this_machine_has_cgroups() {
        let found = Hierarchies::discover().unwrap();
        for hierarchy in found.v1.values().chain(&found.v2) {
            assert!(hierarchy.mount.join("cgroup.procs").exists(), "{hierarchy:?}");
        }
    }
}
