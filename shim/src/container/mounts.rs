//! `mounts`: what a container sees besides its root filesystem.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount::{self, Filesystem};
use berth_sys::path::Root;
use berth_types::spec;
use berth_types::{Error, Result, ResultExt};
use rustix::fs::{FileType, PROC_SUPER_MAGIC};

use super::mount_options::MountOptions;

/// A checked mount.
#[derive(Debug)]
pub(super) struct MountPlan {
    /// Where, inside the root.
    pub(super) destination: PathBuf,
    /// What.
    pub(super) what: What,
    /// How.
    pub(super) options: MountOptions,
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
/// host has.
const PROC_FILES: [&str; 9] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
];

impl MountPlan {
    /// Checks every mount; relative sources are in `bundle`.
    pub(super) fn check_all(mounts: &[spec::Mount], bundle: &Path) -> Result<Vec<Self>> {
        let check = |mount: &spec::Mount| {
            Self::check(mount, bundle).context(|| format!("mounts: {:?}", mount.destination))
        };
        mounts.iter().map(check).collect()
    }

    fn check(mount: &spec::Mount, bundle: &Path) -> Result<Self> {
        if mount.destination.is_empty() {
            return Err(Error::invalid_argument("there is no destination"));
        }
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return Err(Error::unimplemented("mappings of a mount's ids are not offered"));
        }
        let options = MountOptions::parse(&mount.options)?;
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
        Ok(Self { destination: Path::new("/").join(&mount.destination), what, options })
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
        let copy = mount::copy_path(path, recursive).context(shown)?;
        self.refuse_fake_proc(&copy)?;
        for change in self.options.changes().chain(self.options.propagation_change()) {
            change.apply(copy.as_fd()).context(shown)?;
        }
        let stat = rustix::fs::fstat(&copy).map_err(io::Error::from).context(shown)?;
        let target = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => root.make_directory(&self.destination),
            _ => root.make_file(&self.destination),
        };
        let target = target.context(|| "make the mount point")?;
        mount::attach(copy.as_fd(), target.as_fd()).context(shown)
    }

    /// Nothing but a procfs may lie over `/proc`, and only some files be replaced in it: whoever
    /// can feign `/proc` defeats what is written through it and masked in it (CVE-2019-16884).
    fn refuse_fake_proc(&self, source: &OwnedFd) -> Result<()> {
        let Some(below) = below_proc(&self.destination) else { return Ok(()) };
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
        let filesystem = Filesystem::open(name).context(|| name.to_owned())?;
        let source = if source.is_empty() { name } else { source };
        filesystem.set("source", source).context(|| name.to_owned())?;
        for option in &self.options.data {
            filesystem
                .option(option)
                .map_err(|error| Error::invalid_argument(format!("option {option:?}: {error}")))?;
        }
        if let Some(mode) = &target.mode
            && name == "tmpfs"
            && !self.options.data.iter().any(|option| option.starts_with("mode="))
        {
            filesystem.set("mode", mode).context(|| name.to_owned())?;
        }
        let detached = filesystem.mount(self.options.attributes()).context(|| name.to_owned())?;
        mount::attach(detached.as_fd(), target.fd.as_fd()).context(|| "attach it")?;
        if let Some(change) = self.options.propagation_change() {
            change.apply(detached.as_fd()).context(|| "change its propagation")?;
        }
        Ok(())
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

    fn mount(kind: &str, destination: &str, source: &str, options: &[&str]) -> spec::Mount {
        spec::Mount {
            destination: destination.into(),
            kind: Some(kind.into()),
            source: Some(source.into()),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..spec::Mount::default()
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        let plan = |mount| MountPlan::check(&mount, Path::new("/bundle")).unwrap();
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
