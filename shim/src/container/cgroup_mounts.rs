//! A container's view of its control groups.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount::{self, Change, Filesystem};
use berth_sys::path::Root;
use berth_types::{Error, Result, ResultExt};

use rustix::mount::MountAttrFlags;

use super::mounts::MountPlan;

/// Where the host has its hierarchies of v1, each at its name.
const HIERARCHIES: &str = "/sys/fs/cgroup";

/// `CGROUP2_SUPER_MAGIC` of `statfs(2)`.
pub(super) const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// Mounts the cgroup `directories` of the container at `plan`'s place inside of `root`. Hierarchies
/// in which it has no directory of its own are not shown: there is only the host's to see.
pub(super) fn mount(plan: &MountPlan, root: &Root, directories: &[PathBuf]) -> Result<()> {
    let view = View { plan, root };
    let mounted = match directories {
        [only] if is_v2(only) => view.mount_v2(only),
        all => view.mount_v1(all),
    };
    mounted.context(|| format!("mount {}", plan.destination.display()))
}

fn is_v2(directory: &Path) -> bool {
    rustix::fs::statfs(directory).is_ok_and(|stat| stat.f_type == CGROUP2_SUPER_MAGIC)
}

struct View<'a> {
    plan: &'a MountPlan,
    root: &'a Root,
}

impl View<'_> {
    fn mount_v2(&self, directory: &Path) -> Result<()> {
        let target = self.directory(&self.plan.destination)?;
        self.bind(directory, &target)
    }

    /// A tmpfs with a directory for each hierarchy.
    fn mount_v1(&self, directories: &[PathBuf]) -> Result<()> {
        let target = self.directory(&self.plan.destination)?;
        let tmpfs = self.tmpfs().context(|| "make a tmpfs")?;
        mount::attach(tmpfs.as_fd(), target.as_fd()).context(|| "attach a tmpfs")?;
        for directory in directories {
            let Some(name) = hierarchy(directory) else { continue };
            let target = self.directory(&self.plan.destination.join(name))?;
            self.bind(directory, &target)?;
            self.link_controllers(name, &tmpfs)?;
        }
        if self.plan.options.read_only() {
            let set = MountAttrFlags::MOUNT_ATTR_RDONLY;
            let change = Change { set, ..Change::default() };
            change.apply(tmpfs.as_fd()).context(|| "make the tmpfs read-only")?;
        }
        Ok(())
    }

    fn tmpfs(&self) -> std::io::Result<OwnedFd> {
        let filesystem = Filesystem::open("tmpfs")?;
        filesystem.set("mode", "755")?;
        let mut attributes = self.plan.options.attributes();
        attributes.remove(MountAttrFlags::MOUNT_ATTR_RDONLY);
        filesystem.mount(attributes)
    }

    fn bind(&self, directory: &Path, target: &OwnedFd) -> Result<()> {
        let what = || format!("bind {}", directory.display());
        let path = directory.to_str().ok_or_else(|| Error::internal("is not UTF-8"))?;
        let copy = mount::copy_path(path, false).context(what)?;
        for change in self.plan.options.changes() {
            change.apply(copy.as_fd()).context(what)?;
        }
        mount::attach(copy.as_fd(), target.as_fd()).context(what)
    }

    /// Where several controllers share the hierarchy `name` (`cpu,cpuacct`), each gets a link.
    fn link_controllers(&self, name: &str, tmpfs: &OwnedFd) -> Result<()> {
        for controller in name.split(',').filter(|controller| *controller != name) {
            rustix::fs::symlinkat(name, tmpfs, controller)
                .map_err(std::io::Error::from)
                .context(|| format!("link {controller}"))?;
        }
        Ok(())
    }

    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        self.root.make_directory(path).context(|| format!("make {}", path.display()))
    }
}

/// The name of the hierarchy that `directory` is in.
fn hierarchy(directory: &Path) -> Option<&str> {
    directory.strip_prefix(HIERARCHIES).ok()?.iter().next()?.to_str()
}
