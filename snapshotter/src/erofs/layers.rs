//! The mounts of layers: made when the first snapshot on top needs them, shared by all, gone a while
//! after the last. They are found again after a restart of the daemon, and made again after one of the
//! machine.

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_sys::{loop_device, mount};
use berth_types::{Result, ResultExt};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags};

use super::IMAGE;
use crate::directories::blocking;

/// What `statfs(2)` calls erofs: `EROFS_SUPER_MAGIC_V1` of `linux/magic.h`.
const MAGIC: rustix::fs::FsWord = 0xe0f5_e1e2;

/// How long a layer stays mounted that nothing uses any more. The next container is often not far,
/// and to unmount takes the kernel a hundred times as long as to mount.
const LINGER: Duration = Duration::from_secs(30);

/// The layers below one directory.
#[derive(Clone)]
pub(super) struct Layers {
    directory: PathBuf,
    /// Who uses the layers that are mounted. Held while mounts are made and removed.
    users: Arc<Mutex<Users>>,
}

/// The users of each layer.
type Users = HashMap<u64, Layer>;

/// A layer that is mounted.
#[derive(Default)]
struct Layer {
    /// The snapshots that use it.
    users: HashSet<u64>,
    /// Since when it has none.
    idle: Option<Instant>,
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
        let mut users = lock(&self.users);
        for layer in layers {
            users.entry(*layer).or_default().users.insert(snapshot);
        }
    }

    /// Mounts `layers` for `snapshot`, as far as they are not.
    pub(super) async fn hold(&self, snapshot: u64, layers: Vec<u64>) -> Result<()> {
        let this = self.clone();
        blocking(move || {
            let mut users = lock(&this.users);
            for layer in layers {
                let target = this.target(layer);
                if !is_mounted(&target) {
                    let image = this.directory.join(layer.to_string()).join(IMAGE);
                    mount_at(&image, &target)?;
                }
                let layer = users.entry(layer).or_default();
                layer.users.insert(snapshot);
                layer.idle = None;
            }
            Ok(())
        })
        .await
    }

    /// Lets go of what `snapshot` uses. What nothing else uses is unmounted after a while.
    pub(super) fn release(&self, snapshot: u64) {
        let now = Instant::now();
        let mut idle = false;
        for layer in lock(&self.users).values_mut() {
            if layer.users.remove(&snapshot) && layer.users.is_empty() {
                layer.idle = Some(now);
                idle = true;
            }
        }
        if idle {
            let (directory, users) = (self.directory.clone(), Arc::downgrade(&self.users));
            tokio::spawn(async move {
                tokio::time::sleep(LINGER).await;
                let Some(users) = users.upgrade() else { return };
                let this = Self { directory, users };
                let unmounted = blocking(move || this.unmount_idle(now)).await;
                if let Err(error) = unmounted {
                    tracing::warn!(%error, "a layer stays mounted");
                }
            });
        }
    }

    /// Unmounts all layers that nothing uses.
    pub(super) async fn tidy(&self) -> Result<()> {
        let this = self.clone();
        blocking(move || this.unmount_idle(Instant::now())).await
    }

    /// Unmounts a layer that is gone.
    pub(super) async fn forget(&self, layer: u64) -> Result<()> {
        let this = self.clone();
        blocking(move || {
            let mut users = lock(&this.users);
            users.remove(&layer);
            unmount(&this.target(layer))
        })
        .await
    }

    /// Unmounts a layer that is mounted for no snapshot.
    pub(super) fn unmount_unused(&self, layer: u64) -> Result<()> {
        let users = lock(&self.users);
        if users.contains_key(&layer) { Ok(()) } else { unmount(&self.target(layer)) }
    }

    /// Unmounts the layers that nothing has used since `then`, one at a time: whoever wants to
    /// mount another does not wait for all of them.
    fn unmount_idle(&self, then: Instant) -> Result<()> {
        let since = |layer: &Layer| layer.idle.is_some_and(|idle| idle <= then);
        let idle: Vec<_> =
            lock(&self.users).iter().filter(|(_, layer)| since(layer)).map(|(id, _)| *id).collect();
        for id in idle {
            let mut users = lock(&self.users);
            if users.get(&id).is_some_and(since) {
                unmount(&self.target(id))?;
                users.remove(&id);
            }
        }
        Ok(())
    }
}

fn lock(users: &Mutex<Users>) -> MutexGuard<'_, Users> {
    users.lock().unwrap_or_else(PoisonError::into_inner)
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
