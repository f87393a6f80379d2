//! `mounts`: what a container sees besides its root filesystem.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use berth_sys::mount::{self, Change, Filesystem};
use berth_sys::path::Root;
use berth_types::spec;
use berth_types::{Error, Result, ResultExt};
use rustix::fs::{FileType, PROC_SUPER_MAGIC};
use rustix::mount::MountAttrFlags;

use super::copy_up::copy_up;
use super::id_maps::IdMaps;
use super::label;
use super::mount_options::MountOptions;
use super::owners::Owners;
use super::place;

/// A checked mount.
#[derive(Debug)]
pub(super) struct MountPlan {
    /// Where, inside the root.
    pub(super) destination: PathBuf,
    /// What.
    pub(super) what: What,
    /// How.
    pub(super) options: MountOptions,
    /// How the owners of its files are mapped, if they are.
    pub(super) owners: Option<Owners>,
    /// The idmapped mount, once it is made.
    pub(super) tree: Option<OwnedFd>,
}

/// What is mounted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Something of the host's, with what is mounted below it if `recursive`.
    Bind { source: PathBuf, recursive: bool },
    /// A filesystem of its own.
    Filesystem { name: String, source: String },
    /// The container's view of its control groups.
    Cgroup,
}

/// The files below `/proc` that may be replaced: they say how much the container has of what the
/// host has, or are given to it on purpose.
const PROC_FILES: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// Flags of `mount(2)` that few filesystems have as options. Those that don't are mounted without.
const FLAGS_OF_SOME: [&str; 6] = ["acl", "noacl", "iversion", "noiversion", "loud", "silent"];

impl MountPlan {
    /// Checks every mount; relative sources are in `bundle`, `id_maps` are the container's, and
    /// `label` is what files in a new tmpfs get.
    pub(super) fn check_all(
        mounts: &[spec::Mount],
        bundle: &Path,
        id_maps: &IdMaps,
        label: Option<&str>,
    ) -> Result<Vec<Self>> {
        let context = label::mount_option(label)?;
        let check = |mount: &spec::Mount| {
            let plan = Self::check(mount, bundle, id_maps);
            let mut plan = plan.context(|| format!("mounts: {:?}", mount.destination))?;
            if matches!(&plan.what, What::Filesystem { name, .. } if name == "tmpfs") {
                plan.options.data.extend(context.clone());
            }
            Ok(plan)
        };
        mounts.iter().map(check).collect()
    }

    fn check(mount: &spec::Mount, bundle: &Path, id_maps: &IdMaps) -> Result<Self> {
        if mount.destination.is_empty() {
            return Err(Error::invalid_argument("there is no destination"));
        }
        if leaves_root(Path::new(&mount.destination)) {
            return Err(Error::invalid_argument("the destination is outside of the root"));
        }
        let options = MountOptions::parse(&mount.options);
        let kind = mount.kind.as_deref().unwrap_or("");
        let source = mount.source.clone().unwrap_or_default();
        let what = match kind {
            _ if options.bind.is_some() || kind == "bind" || kind == "rbind" => {
                if source.is_empty() {
                    return Err(Error::invalid_argument("a bind mount needs a source"));
                }
                let recursive = options.bind.unwrap_or(kind == "rbind");
                What::Bind { source: bundle.join(source), recursive }
            }
            "" => return Err(Error::invalid_argument("there is no type")),
            "cgroup" | "cgroup2" => What::Cgroup,
            name => What::Filesystem { name: name.to_owned(), source },
        };
        if options.copy_up && !matches!(&what, What::Filesystem { name, .. } if name == "tmpfs") {
            return Err(Error::invalid_argument("tmpcopyup is for a tmpfs"));
        }
        let owners = owners(mount, &options, id_maps)?;
        if owners.is_some() && !matches!(what, What::Bind { .. }) {
            return Err(Error::invalid_argument("only owners of a bind mount are mapped"));
        }
        let destination = Path::new("/").join(&mount.destination);
        Ok(Self { destination, what, options, owners, tree: None })
    }

    /// Mounts it inside of `root`; for control groups see
    /// [`cgroup_mounts`](super::cgroup_mounts).
    pub(super) fn mount(&self, root: &Root) -> Result<()> {
        let mounted = match &self.what {
            What::Bind { source, recursive } => self.bind(root, source, *recursive),
            What::Filesystem { name, source } => self.filesystem(root, name, source),
            What::Cgroup => Ok(()),
        };
        mounted.context(|| format!("mount {}", self.destination.display()))
    }

    fn bind(&self, root: &Root, source: &Path, recursive: bool) -> Result<()> {
        let shown = || format!("bind {}", source.display());
        let path = source.to_str().ok_or_else(|| Error::invalid_argument("is not UTF-8"))?;
        let copied;
        let copy = match &self.tree {
            Some(tree) => tree,
            None => {
                copied = mount::copy_path(path, recursive).context(shown)?;
                for change in self.options.changes() {
                    change.apply(copied.as_fd()).context(shown)?;
                }
                &copied
            }
        };
        if let Some(change) = self.options.propagation_change() {
            change.apply(copy.as_fd()).context(shown)?;
        }
        let stat = rustix::fs::fstat(copy).map_err(io::Error::from).context(shown)?;
        let target = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => root.make_directory(&self.destination),
            _ => root.make_file(&self.destination),
        };
        let target = target.context(|| "make the mount point")?;
        refuse_root(root, &target)?;
        self.refuse_fake_proc(copy, root, &target)?;
        mount::attach(copy.as_fd(), target.as_fd()).context(shown)
    }

    /// Nothing but a procfs may lie over `/proc`, and only some files be replaced in it: whoever
    /// can feign `/proc` defeats what is written through it and masked in it (CVE-2019-16884). A
    /// link of the image's must not lead to `target`s there either.
    fn refuse_fake_proc(&self, source: &OwnedFd, root: &Root, target: &OwnedFd) -> Result<()> {
        let what = || "look at the mount point";
        let below = match below_proc(&self.destination) {
            None if place::is_in_procfs(target).context(what)? => {
                below_proc(&place::path_in(root, target).context(what)?)
            }
            said => said,
        };
        let Some(below) = below else { return Ok(()) };
        let allowed = match below.to_str() {
            Some("") => {
                let filesystem = rustix::fs::fstatfs(source).map_err(io::Error::from);
                filesystem.context(|| "look at the source")?.f_type == PROC_SUPER_MAGIC
            }
            Some(file) => PROC_FILES.contains(&file),
            None => false,
        };
        match allowed {
            true => Ok(()),
            false => Err(Error::invalid_argument("this may not be mounted inside of /proc")),
        }
    }

    fn filesystem(&self, root: &Root, name: &str, source: &str) -> Result<()> {
        let target = self.mount_point(root, name)?;
        refuse_root(root, &target.fd)?;
        let filesystem = Filesystem::open(name).context(|| name.to_owned())?;
        let source = if source.is_empty() { name } else { source };
        filesystem.set("source", source).context(|| name.to_owned())?;
        for option in &self.options.data {
            match filesystem.option(option) {
                Err(_) if FLAGS_OF_SOME.contains(&option.as_str()) => {}
                set => set.map_err(|error| {
                    Error::invalid_argument(format!("option {option:?}: {error}"))
                })?,
            }
        }
        if let Some(mode) = &target.mode
            && name == "tmpfs"
            && !self.options.data.iter().any(|option| option.starts_with("mode="))
        {
            filesystem.set("mode", mode).context(|| name.to_owned())?;
        }
        let detached = self.filled(&filesystem, &target).context(|| name.to_owned())?;
        mount::attach(detached.as_fd(), target.fd.as_fd()).context(|| "attach it")?;
        if let Some(change) = self.options.propagation_change() {
            change.apply(detached.as_fd()).context(|| "change its propagation")?;
        }
        Ok(())
    }

    /// A mount of `filesystem` with what it has in the beginning.
    fn filled(&self, filesystem: &Filesystem, target: &Target) -> io::Result<OwnedFd> {
        let attributes = self.options.attributes();
        if !self.options.copy_up {
            return filesystem.mount(attributes);
        }
        let detached = filesystem.mount(MountAttrFlags::empty())?;
        copy_up(target.fd.as_fd(), detached.as_fd())?;
        Change { set: attributes, ..Change::default() }.apply(detached.as_fd())?;
        Ok(detached)
    }

    /// The directory that a filesystem of type `name` is mounted on.
    fn mount_point(&self, root: &Root, name: &str) -> Result<Target> {
        let found = match name {
            // A link would leave the real place uncovered, and what is written through it and
            // masked in it would be something else (CVE-2019-19921).
            "proc" | "sysfs" => root.find_plain(&self.destination),
            _ => root.find(&self.destination),
        };
        match found {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).map_err(io::Error::from);
                let stat = stat.context(|| "look at the mount point")?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    return Err(Error::invalid_argument("the mount point is no directory"));
                }
                Ok(Target { fd, mode: Some(format!("{:o}", stat.st_mode & 0o7777)) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let fd = root.make_directory(&self.destination);
                Ok(Target { fd: fd.context(|| "make the mount point")?, mode: None })
            }
            Err(error) => Err(Error::io("find the mount point", &error)),
        }
    }
}

/// A mount point, and the mode of the directory that was there before.
struct Target {
    fd: OwnedFd,
    mode: Option<String>,
}

/// How the owners of the files in `mount` are mapped: by its own maps, or those of the container.
fn owners(mount: &spec::Mount, options: &MountOptions, id_maps: &IdMaps) -> Result<Option<Owners>> {
    let own = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let maps = match (own, options.idmap) {
        (false, None) => return Ok(None),
        (true, _) => IdMaps::of("mount", &mount.uid_mappings, &mount.gid_mappings)?,
        (false, Some(_)) if !id_maps.is_empty() => id_maps.clone(),
        (false, Some(_)) => {
            return Err(Error::invalid_argument("idmap: neither mount nor container has mappings"));
        }
    };
    Ok(Some(Owners { maps, recursive: options.idmap.unwrap_or(false) }))
}

/// # Errors
/// InvalidArgument when `target`, a mount point, is the root itself.
fn refuse_root(root: &Root, target: &OwnedFd) -> Result<()> {
    match place::is_root(root, target).context(|| "look at the mount point")? {
        true => Err(Error::invalid_argument("the destination is the root itself")),
        false => Ok(()),
    }
}

/// Whether `path` has more `..` than names before them.
fn leaves_root(path: &Path) -> bool {
    let depth = path.components().try_fold(0_usize, |depth, component| match component {
        Component::Normal(_) => Some(depth + 1),
        Component::ParentDir => depth.checked_sub(1),
        _ => Some(depth),
    });
    depth.is_none()
}

/// What of `path` is below `/proc`, by its text without `.` and `..`.
fn below_proc(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => normal.push(name),
            std::path::Component::ParentDir => drop(normal.pop()),
            _ => {}
        }
    }
    normal.strip_prefix("proc").ok().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_sys::namespace::Namespaces;

    fn mount(kind: &str, destination: &str, source: &str, options: &[&str]) -> spec::Mount {
        spec::Mount {
            destination: destination.into(),
            kind: Some(kind.into()),
            source: Some(source.into()),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..spec::Mount::default()
        }
    }

    fn no_maps() -> IdMaps {
        IdMaps::check(&spec::Linux::default(), Namespaces::NONE).unwrap()
    }

    #[test]
    fn what_can_not_be_is_refused() {
        for bad in [
            mount("bind", "/../etc", "/tmp", &["bind"]),
            mount("bind", "/a/../../etc", "/tmp", &["bind"]),
            mount("bind", "/data", "", &["bind"]),
            mount("", "/data", "/tmp", &[]),
            mount("bind", "/data", "/tmp", &["rbind", "idmap"]),
            mount("proc", "/data", "proc", &["tmpcopyup"]),
        ] {
            assert!(MountPlan::check(&bad, Path::new("/bundle"), &no_maps()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        let plan = |mount| MountPlan::check(&mount, Path::new("/bundle"), &no_maps()).unwrap();
        let bind = plan(mount("none", "data", "src", &["rbind", "ro"]));
        let source = PathBuf::from("/bundle/src");
        assert_eq!(bind.what, What::Bind { source, recursive: true });
        assert_eq!(bind.destination, Path::new("/data"));
        assert_eq!(plan(mount("cgroup", "/sys/fs/cgroup", "cgroup", &[])).what, What::Cgroup);
    }

    #[test]
    fn what_lies_inside_of_proc_is_seen_through_its_spelling() {
        assert_eq!(below_proc(Path::new("/proc/../proc/./sys")), Some("sys".into()));
        assert_eq!(below_proc(Path::new("/proc")), Some("".into()));
        assert_eq!(below_proc(Path::new("/process")), None);
    }
}
