//! The root filesystem, which is mounted only in the container's own mountns.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::mount::{self, Change, Filesystem, Propagation};
use berth_sys::path::Root;
use berth_types::spec;
use berth_types::{Error, Result, ResultExt};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::mount::MountAttrFlags;

use super::mount_options::MountOptions;
use super::plan::{RootMount, RootPlan};

impl RootPlan {
    /// Cuts the caller's mountns off from the host's, and mounts the root filesystem.
    pub(super) fn mount(&self) -> Result<Root> {
        self.isolate()?;
        let mut root = None;
        for mount in &self.mounts {
            let layer = self
                .mount_one(mount)
                .context(|| format!("mount the root filesystem at {}", self.path.display()))?;
            root = Some(layer);
        }
        match root {
            Some(root) => Ok(Root::from(root)),
            None => self.bind_itself().map(Root::from),
        }
    }

    /// No mount or unmount of the container's may reach the host, unless the spec shares the root.
    /// The other way is left open unless the spec closes it.
    fn isolate(&self) -> Result<()> {
        let (mount, propagation, recursive) = match self.propagation {
            // The root filesystem must not show up on the host, nor could it become the root.
            Some((Propagation::Shared, _)) => (self.mount_below()?, Propagation::Private, false),
            Some((Propagation::Private | Propagation::Unbindable, _)) => {
                (open(Path::new("/")).context(|| "open /")?, Propagation::Private, true)
            }
            _ => (open(Path::new("/")).context(|| "open /")?, Propagation::Slave, true),
        };
        let change = Change { propagation: Some(propagation), recursive, ..Change::default() };
        change.apply(mount.as_fd()).context(|| "cut mounts off from the host's")
    }

    /// The root of the mount that `self.path` lies in.
    fn mount_below(&self) -> Result<OwnedFd> {
        let mut directory = open(&self.path).context(|| "open the root filesystem")?;
        loop {
            let stat = rustix::fs::statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
                .map_err(std::io::Error::from)
                .context(|| "look for the bundle's mount")?;
            if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                return Ok(directory);
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            directory = rustix::fs::openat(&directory, "..", flags, Mode::empty())
                .map_err(std::io::Error::from)
                .context(|| "look for the bundle's mount")?;
        }
    }

    /// Mounts one filesystem on what is at the path by now.
    fn mount_one(&self, one: &RootMount) -> Result<OwnedFd> {
        let made = match &one.tree {
            Some(tree) => Some(tree.try_clone().context(|| "take it")?),
            None => detached(&one.mount, &one.options)?,
        };
        let Some(detached) = made else { return self.mount_overlay(one) };
        let target = open(&self.path).context(|| "open it")?;
        mount::attach(detached.as_fd(), target.as_fd()).context(|| "attach it")?;
        Ok(detached)
    }

    /// Mounts an overlay at the path at once, as old kernels need it.
    pub(super) fn mount_overlay(&self, one: &RootMount) -> Result<OwnedFd> {
        let target = open(&self.path).context(|| "open it")?;
        let data: Vec<&str> = one.options.data.iter().map(String::as_str).collect();
        mount::mount_overlay_at(target.as_fd(), &data).context(|| "overlay")?;
        open(&self.path).context(|| "open it")
    }

    /// Makes a mount of what lies at the path, since only a mount can become the root.
    fn bind_itself(&self) -> Result<OwnedFd> {
        let what = || format!("bind the root filesystem {}", self.path.display());
        let target = open(&self.path).context(what)?;
        let copy = mount::copy(target.as_fd(), "", true).context(what)?;
        mount::attach(copy.as_fd(), target.as_fd()).context(what)?;
        Ok(copy)
    }

    /// Makes `root` the caller's root.
    pub(super) fn enter(&self, root: &Root) -> Result<()> {
        let enter = match self.no_pivot {
            true => mount::move_to_root,
            false => mount::pivot,
        };
        enter(root.as_fd()).context(|| "make the container's root the root")?;
        // What is shared could not become the root.
        if let Some((propagation, recursive)) = self.propagation {
            let change = Change { propagation: Some(propagation), recursive, ..Change::default() };
            change.apply(root.as_fd()).context(|| "change the propagation of the new root")?;
        }
        Ok(())
    }

    /// Makes `root` read-only if the spec says so. What is mounted below it stays as it is.
    pub(super) fn finish(&self, root: &Root) -> Result<()> {
        if self.readonly {
            let set = MountAttrFlags::MOUNT_ATTR_RDONLY;
            let change = Change { set, ..Change::default() };
            change.apply(root.as_fd()).context(|| "make the root filesystem read-only")?;
        }
        Ok(())
    }
}

/// The filesystem of `mount`, attached nowhere; `None` for an overlay that can't be made so.
pub(super) fn detached(mount: &spec::Mount, options: &MountOptions) -> Result<Option<OwnedFd>> {
    let kind = mount.kind.as_deref().unwrap_or("");
    let source = mount.source.as_deref().unwrap_or("");
    if let Some(recursive) = bound(mount, options) {
        let copy = mount::copy_path(source, recursive).context(|| format!("bind {source}"))?;
        for change in options.changes() {
            change.apply(copy.as_fd()).context(|| format!("bind {source}"))?;
        }
        return Ok(Some(copy));
    }
    if kind == "overlay" {
        let data: Vec<&str> = options.data.iter().map(String::as_str).collect();
        return mount::overlay(&data, options.attributes()).context(|| "overlay");
    }
    if kind.is_empty() {
        return Err(Error::invalid_argument("the root filesystem's mount has no type"));
    }
    let make = || {
        let filesystem = Filesystem::open(kind)?;
        if !source.is_empty() {
            filesystem.set("source", source)?;
        }
        options.data.iter().try_for_each(|option| filesystem.option(option))?;
        filesystem.mount(options.attributes())
    };
    make().map(Some).context(|| format!("{kind} of {source}"))
}

/// Whether `mount` binds what is there already, and then whether with the mounts below.
pub(super) fn bound(mount: &spec::Mount, options: &MountOptions) -> Option<bool> {
    let kind = mount.kind.as_deref().unwrap_or("");
    options.bind.or_else(|| matches!(kind, "bind" | "rbind").then(|| kind == "rbind"))
}

pub(super) fn open(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}
