//! Mounts as objects: made detached, given their attributes, attached last.
//!
//! A mount is a descriptor until [`attach`] gives it a place, so that nothing half configured is
//! ever seen at a path, and no path is walked twice (`fsopen(2)`, `mount_setattr(2)`). Needs
//! Linux 5.12.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// The longest value that `fsconfig(2)` takes as a string.
const VALUE_MAX: usize = 255;

/// A filesystem that is being configured.
#[derive(Debug)]
pub struct Filesystem(OwnedFd);

impl Filesystem {
    /// Begins to configure a filesystem of type `name`.
    ///
    /// # Errors
    /// `ENODEV` when the kernel has no such filesystem.
    pub fn open(name: &str) -> io::Result<Self> {
        Ok(Self(fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?))
    }

    /// Sets `option`, written `key=value` or `flag`.
    ///
    /// # Errors
    /// `EINVAL` when the filesystem has no such option or refuses the value.
    pub fn option(&self, option: &str) -> io::Result<()> {
        match option.split_once('=') {
            Some((key, value)) => self.set(key, value),
            None => Ok(fsconfig_set_flag(&self.0, option).map_err(|errno| self.explain(errno))?),
        }
    }

    /// Sets the option `key` to `value`.
    ///
    /// # Errors
    /// As [`Filesystem::option`].
    pub fn set(&self, key: &str, value: &str) -> io::Result<()> {
        fsconfig_set_string(&self.0, key, value).map_err(|errno| self.explain(errno))
    }

    /// Makes the superblock, and a mount of it with `attributes` that is attached nowhere.
    ///
    /// # Errors
    /// Those of the filesystem, with the words that it left in the log of the configuration.
    pub fn mount(&self, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
        fsconfig_create(&self.0).map_err(|errno| self.explain(errno))?;
        Ok(fsmount(&self.0, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    }

    /// An error of `errno`'s kind with the kernel's own explanation, if it left one.
    fn explain(&self, errno: Errno) -> io::Error {
        let mut log = [0; 512];
        let error = io::Error::from(errno);
        match rustix::io::read(&self.0, &mut log) {
            Ok(length) if length > 2 => {
                let text = String::from_utf8_lossy(&log[2..length]);
                io::Error::new(error.kind(), format!("{error} ({})", text.trim_end()))
            }
            _ => error,
        }
    }
}

/// Makes an overlay from the options of `mount(8)`, as a detached mount with `attributes`; `None`
/// when this kernel can take them only by [`mount_overlay_at`].
///
/// # Errors
/// Those of the filesystem.
pub fn overlay(options: &[&str], attributes: MountAttrFlags) -> io::Result<Option<OwnedFd>> {
    match try_overlay(options, attributes, true)? {
        None => try_overlay(options, attributes, false),
        mounted => Ok(mounted),
    }
}

/// The same with its layers given one by one, which Linux 6.8 can take, or in one value.
fn try_overlay(
    options: &[&str],
    attributes: MountAttrFlags,
    one_by_one: bool,
) -> io::Result<Option<OwnedFd>> {
    let filesystem = Filesystem::open("overlay")?;
    for option in options {
        let layers = option.strip_prefix("lowerdir=").filter(|_| one_by_one);
        for layer in layers.map(split_layers).into_iter().flatten() {
            if layer.len() > VALUE_MAX
                || fsconfig_set_string(&filesystem.0, "lowerdir+", layer.as_str()).is_err()
            {
                return Ok(None);
            }
        }
        if layers.is_none() {
            if option.len() > VALUE_MAX {
                return Ok(None);
            }
            filesystem.option(option)?;
        }
    }
    match filesystem.mount(attributes) {
        // Before 6.5 the filesystem sees its options only now, and explains nothing.
        Err(error) if one_by_one && error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        mounted => mounted.map(Some),
    }
}

/// Splits the value of an overlay's `lowerdir` at its colons, undoing the escapes `\:` and `\\`.
pub fn split_layers(lower: &str) -> Vec<String> {
    let mut layers = vec![String::new()];
    let mut characters = lower.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => layers.push(String::new()),
            '\\' => layers.iter_mut().last().into_iter().for_each(|layer| {
                layer.extend(characters.next());
            }),
            other => layers.iter_mut().last().into_iter().for_each(|layer| layer.push(other)),
        }
    }
    layers
}

/// Mounts an overlay at `target` by `mount(2)`, whose options must fit in a page: when the layers
/// share a parent, it becomes the working directory and they are named from there. For a child
/// that has no use for its working directory.
///
/// # Errors
/// Those of `mount(2)`.
pub fn mount_overlay_at(target: BorrowedFd<'_>, options: &[&str]) -> io::Result<()> {
    let mut data = options.join(",");
    if data.len() >= rustix::param::page_size()
        && let Some(base) = common_parent(options)
    {
        rustix::process::chdir(base.as_str())?;
        data = data.replace(&base, "");
    }
    let data = std::ffi::CString::new(data)?;
    let target = format!("/proc/self/fd/{}", target.as_raw_fd());
    rustix::mount::mount(
        "overlay",
        target.as_str(),
        "overlay",
        rustix::mount::MountFlags::empty(),
        data.as_c_str(),
    )?;
    Ok(())
}

/// The longest directory, with a slash at its end, that all the layers of an overlay are under.
fn common_parent(options: &[&str]) -> Option<String> {
    let lower = options.iter().find_map(|option| option.strip_prefix("lowerdir="))?;
    let layers = split_layers(lower);
    let mut base = layers.first()?.as_str();
    while !layers.iter().all(|layer| layer.starts_with(base)) || !base.ends_with('/') {
        base = &base[..base.len().checked_sub(1)?];
        base = &base[..=base.rfind('/')?];
    }
    Some(base.to_owned())
}

/// A detached copy of the mount at `path` under `directory` (with `recursive`, of those below it
/// too): a bind mount that has no place yet. An empty path means `directory` itself.
///
/// # Errors
/// Those of `open_tree(2)`.
pub fn copy(directory: BorrowedFd<'_>, path: &str, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(directory, path, flags)?)
}

/// As [`copy`], of a path in the caller's own tree.
///
/// # Errors
/// Those of `open_tree(2)`.
pub fn copy_path(path: &str, recursive: bool) -> io::Result<OwnedFd> {
    copy(CWD, path, recursive)
}

/// Attaches the detached `mount` on top of what `target` refers to.
///
/// # Errors
/// Those of `move_mount(2)`.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// How mounts and unmounts pass between copies of a mount (`mount_namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// Only into this copy.
    Slave,
    /// Neither way.
    Private,
    /// Neither way, and it can't be bound.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Private => libc::MS_PRIVATE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// What [`Change::apply`] changes of a mount.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Attributes to set.
    pub set: MountAttrFlags,
    /// Attributes to clear first.
    pub clear: MountAttrFlags,
    /// The propagation to change to.
    pub propagation: Option<Propagation>,
    /// The mounts below are changed too.
    pub recursive: bool,
}

impl Default for Change {
    fn default() -> Self {
        Self {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
            propagation: None,
            recursive: false,
        }
    }
}

/// The kernel's `struct mount_attr` (Linux 5.12).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

impl Change {
    /// Changes the mount at `mount` (`mount_setattr(2)`).
    ///
    /// # Errors
    /// Those of `mount_setattr(2)`.
    pub fn apply(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        let attr = MountAttr {
            attr_set: self.set.bits().into(),
            attr_clr: self.clear.bits().into(),
            propagation: self.propagation.map_or(0, Propagation::bits),
            userns_fd: 0,
        };
        set_attributes(mount, self.recursive, &attr)
    }
}

/// Maps the owners of files in the detached `mount` by the maps of `userns`, an idmapped mount.
///
/// # Errors
/// Those of `mount_setattr(2)`; `EINVAL` when the filesystem can't do it.
pub fn map_owners(
    mount: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    recursive: bool,
) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: MountAttrFlags::MOUNT_ATTR_IDMAP.bits().into(),
        userns_fd: userns.as_raw_fd() as u64,
        ..MountAttr::default()
    };
    set_attributes(mount, recursive, &attr)
}

fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, and `attr` is a mount_attr of the size given; the kernel
    // reads both during the call only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `root`, a mount point, the caller's root and working directory, and drops the old tree
/// (`pivot_root(2)`).
///
/// # Errors
/// Those of `pivot_root(2)`.
pub fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    // The old root now lies on top of the new one; the lookup of "." stays below it, and the
    // unmount takes the top.
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Moves `root`, a mount point, over the caller's root and makes it that: for a host whose root
/// is the kernel's first filesystem, which can't be pivoted away from. Unlike after [`pivot`], the
/// old tree is still there, underneath.
///
/// # Errors
/// Those of `move_mount(2)` and `chroot(2)`.
pub fn move_to_root(root: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::process::fchdir(root)?;
    move_mount(root, "", CWD, "/", flags)?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_split_at_unescaped_colons() {
        assert_eq!(split_layers(r"/a:/b\:c:/d\\e"), ["/a", "/b:c", r"/d\e"]);
    }

    #[test]
    fn the_common_parent_is_a_directory_of_every_layer() {
        let parent = |lower| common_parent(&["index=off", lower]);
        assert_eq!(parent("lowerdir=/s/12/fs:/s/1/fs").as_deref(), Some("/s/"));
        assert_eq!(parent("lowerdir=/a:/b").as_deref(), Some("/"));
        assert_eq!(parent("lowerdir=a:b"), None);
    }

    #[test]
    fn an_overlay_of_many_layers_is_made_both_ways() {
        let base = tempfile::tempdir().unwrap();
        let mut layers = Vec::new();
        for number in 0..100 {
            let layer = base.path().join(format!("a-rather-long-name-of-a-layer-{number}"));
            std::fs::create_dir(&layer).unwrap();
            std::fs::write(layer.join(format!("file{number}")), "").unwrap();
            layers.push(layer.to_str().unwrap().to_owned());
        }
        let lower = format!("lowerdir={}", layers.join(":"));
        let mount = overlay(&[&lower], MountAttrFlags::empty()).unwrap().unwrap();
        rustix::fs::statat(&mount, "file99", rustix::fs::AtFlags::empty()).unwrap();
        assert!(lower.len() > rustix::param::page_size());
        // As kernels need it that can't take layers one by one.
        let two = format!("lowerdir={}", layers[98..].join(":"));
        let mount = try_overlay(&[&two], MountAttrFlags::empty(), false).unwrap().unwrap();
        for file in ["file98", "file99"] {
            rustix::fs::statat(&mount, file, rustix::fs::AtFlags::empty()).unwrap();
        }
    }
}
