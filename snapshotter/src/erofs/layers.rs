//! The mounts of layers: made when the first snapshot on top needs them, shared by all, gone with
//! the last. They are found again after a restart of the daemon, and made again after one of the
//! machine.

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use berth_sys::{loop_device, mount};
use berth_types::{Result, ResultExt};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags};

use super::IMAGE;
use crate::directories::blocking;

/// What `statfs(2)` calls erofs: `EROFS_SUPER_MAGIC_V1` of `linux/magic.h`.
const MAGIC: rustix::fs::FsWord = 0xe0f5_e1e2;

/// The layers below one directory.
#[derive(Clone)]
pub(super) struct Layers {
    directory: PathBuf,
    /// The snapshots that use each layer. Held while mounts are made and removed.
    users: Arc<std::sync::Mutex<HashMap<u64, HashSet<u64>>>>,
}

impl Layers {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), users: Arc::default() }
    }

    /// Where a layer is mounted while it is in use.
    pub(super) fn target(&self, layer: u64) -> PathBuf {
        self.directory.join(layer.to_string()).join("mnt")
    }

    /// Notes that `snapshot` uses `layers`, mounted or not.
    pub(super) fn note_use(&self, snapshot: u64, layers: &[u64]) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            users.entry(*layer).or_default().insert(snapshot);
        }
    }

    /// Mounts `layers` for `snapshot`, as far as they are not.
    pub(super) async fn hold(&self, snapshot: u64, layers: Vec<u64>) -> Result<()> {
        let this = self.clone();
        blocking(move || {
            let mut users = this.users.lock().unwrap_or_else(PoisonError::into_inner);
            for layer in layers {
                let target = this.target(layer);
                if !is_mounted(&target) {
                    let image = this.directory.join(layer.to_string()).join(IMAGE);
                    mount_at(&image, &target)?;
                }
                users.entry(layer).or_default().insert(snapshot);
            }
            Ok(())
        })
        .await
    }

    /// Lets go of what `snapshot` uses, and unmounts what nothing else does.
    pub(super) async fn release(&self, snapshot: u64) -> Result<()> {
        let this = self.clone();
        blocking(move || {
            let mut users = this.users.lock().unwrap_or_else(PoisonError::into_inner);
            let mut unused = Vec::new();
            for (layer, users) in users.iter_mut() {
                if users.remove(&snapshot) && users.is_empty() {
                    unused.push(*layer);
                }
            }
            for layer in unused {
                users.remove(&layer);
                unmount(&this.target(layer))?;
            }
            Ok(())
        })
        .await
    }

    /// The same for a snapshot that is gone, which itself can't be used any more.
    pub(super) async fn forget(&self, snapshot: u64) -> Result<()> {
        self.release(snapshot).await?;
        let this = self.clone();
        blocking(move || {
            this.users.lock().unwrap_or_else(PoisonError::into_inner).remove(&snapshot);
            unmount(&this.target(snapshot))
        })
        .await
    }

    /// Unmounts a layer that is mounted for no snapshot.
    pub(super) fn unmount_unused(&self, layer: u64) -> Result<()> {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.contains_key(&layer) { Ok(()) } else { unmount(&self.target(layer)) }
    }
}

fn is_mounted(target: &Path) -> bool {
    rustix::fs::statfs(target).is_ok_and(|statfs| statfs.f_type == MAGIC)
}

/// Mounts an image where it is seen by all.
fn mount_at(image: &Path, target: &Path) -> Result<()> {
    let what = || format!("mount the layer at {}", target.display());
    match DirBuilder::new().mode(0o700).create(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).context(what);
        }
        _ => {}
    }
    let mounted = mount_image(image)?;
    let target = File::open(target).context(what)?;
    mount::attach(mounted.as_fd(), target.as_fd()).context(what)
}

/// Mounts an image, seen nowhere and gone with the descriptor: by the file itself, or through a
/// loop device where the kernel (before 6.12) can't.
///
/// # Errors
/// Those of the kernel and of the disk.
pub fn mount_image(image: &Path) -> Result<OwnedFd> {
    let mount = |source: &Path| {
        let filesystem = mount::Filesystem::open("erofs")?;
        filesystem.set("source", &source.display().to_string())?;
        filesystem.option("ro")?;
        filesystem.mount(MountAttrFlags::MOUNT_ATTR_RDONLY)
    };
    mount(image)
        .or_else(|_| {
            let device = loop_device::attach(File::open(image)?.as_fd())?;
            mount(device.path())
        })
        .context(|| format!("mount the layer {}", image.display()))
}

/// Takes the mount away; who still uses files in it does so until they are done.
fn unmount(target: &Path) -> Result<()> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(target, flags) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => {
            Err(io::Error::from(errno)).context(|| format!("unmount {}", target.display()))
        }
    }
}
