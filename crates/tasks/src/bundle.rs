//! Bundles: the directory that a shim is started in.
//!
//! ```text
//! STATE/io.containerd.runtime.v2.task/NAMESPACE/ID/
//!   config.json        the container's runtime specification
//!   sandbox            the id of the sandbox that the container is in, if it is in one
//!   rootfs/            where the shim mounts the root file system
//!   log                FIFO: the shim's log, read by the daemon
//!   address            where the shim listens
//!   shim-binary-path   a foreign shim's binary; absent for ours
//!   bootstrap.json     a foreign shim's address and version; absent for ours
//!   …                  what the shim itself writes
//! STATE/io.containerd.sandbox.controller.v1.shim/NAMESPACE/ID/
//!   the same, of a sandbox
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_types::{Digest, Error, Result, ResultExt, spec};
use rustix::mount::UnmountFlags;

use crate::bootstrap::Bootstrap;
use crate::config::Config;
use crate::runtime::Runtime;

/// What a bundle is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Task,
    Sandbox,
}

/// A task's bundle, or a sandbox's. The value is only a name; see the methods for what is on disk.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    pub(crate) owner: Owner,
    pub(crate) namespace: String,
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    /// Where the sockets of our own shims are.
    sockets: PathBuf,
}

impl Bundle {
    /// Names a bundle.
    pub(crate) fn of(config: &Config, owner: Owner, namespace: &str, id: &str) -> Self {
        Self {
            owner,
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            path: config.bundles(owner).join(namespace).join(id),
            sockets: config.sockets(),
        }
    }

    /// Whose it is, for messages.
    pub(crate) fn whose(&self) -> String {
        match self.owner {
            Owner::Task => format!("container {}", self.id),
            Owner::Sandbox => format!("sandbox {}", self.id),
        }
    }

    /// Makes the directory and what a shim expects in it; a sandbox may come without a `spec`.
    ///
    /// # Errors
    /// `AlreadyExists` when there is a bundle: what it belongs to must be cleaned up first.
    pub(crate) fn create(&self, spec: &[u8]) -> Result<()> {
        let what = || format!("create bundle {}", self.path.display());
        if let Some(parent) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o711).create(parent).context(what)?;
        }
        DirBuilder::new().mode(0o700).create(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::already_exists(format!(
                "bundle {} of an earlier life is still there",
                self.path.display()
            )),
            _ => Error::io(what(), &error),
        })?;
        let fill = || {
            DirBuilder::new().mode(0o711).create(self.rootfs())?;
            match spec {
                [] => Ok(()),
                spec => fs::write(self.path.join("config.json"), spec),
            }
        };
        fill().context(what).inspect_err(|_| drop(self.remove()))
    }

    fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// The shim's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Gives our own shim of this bundle a socket, and remembers it for the next daemon. Its name
    /// is new each time: a shim that still says goodbye removes its own socket, not that of the
    /// next one. It is short, because a socket's path has 107 bytes at most.
    pub(crate) fn new_socket(&self) -> Result<PathBuf> {
        let Self { namespace, id, .. } = self;
        let seed = format!("{namespace}/{id}/{:?}", SystemTime::now());
        let path = self.sockets.join(&Digest::of(seed.as_bytes()).hex()[..20]);
        self.remember_socket(&path)?;
        Ok(path)
    }

    /// Remembers, for the next daemon, that our own shim of this bundle listens on `socket`.
    pub(crate) fn remember_socket(&self, socket: &Path) -> Result<()> {
        fs::write(self.address(), format!("unix://{}", socket.display()))
            .context(|| format!("write bundle {}", self.path.display()))
    }

    /// The group that the container's specification puts it in.
    pub(crate) fn group(&self) -> Result<Option<String>> {
        let path = self.path.join("config.json");
        spec::group(&fs::read(&path).context(|| format!("read {}", path.display()))?)
    }

    /// Remembers, for the next daemon, that the container is in `sandbox`.
    pub(crate) fn remember_sandbox(&self, sandbox: &str) -> Result<()> {
        fs::write(self.path.join("sandbox"), sandbox)
            .context(|| format!("write bundle {}", self.path.display()))
    }

    /// The sandbox that the container is in, if it is in one.
    pub(crate) fn sandbox(&self) -> Option<String> {
        fs::read_to_string(self.path.join("sandbox")).ok()
    }

    /// Gives the bundle back to our own shim that listens on `socket`: what is needed of it to find
    /// the shim is made anew.
    pub(crate) fn restore(&self, socket: &Path) -> Result<()> {
        let restore = || {
            if let Some(parent) = self.path.parent() {
                DirBuilder::new().recursive(true).mode(0o711).create(parent)?;
            }
            DirBuilder::new().recursive(true).mode(0o700).create(&self.path)
        };
        restore().context(|| format!("restore bundle {}", self.path.display()))?;
        self.remember_socket(socket)
    }

    /// The socket of our own shim of this bundle; `None` if none was ever started.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        let address = fs::read_to_string(self.address()).ok()?;
        let path = Path::new(address.strip_prefix("unix://")?);
        (path.parent() == Some(&self.sockets)).then(|| path.to_owned())
    }

    fn address(&self) -> PathBuf {
        self.path.join("address")
    }

    /// Remembers, for the next daemon, that a foreign shim serves this bundle.
    pub(crate) fn remember_binary(&self, binary: &Path) -> Result<()> {
        fs::write(self.path.join("shim-binary-path"), binary.as_os_str().as_bytes())
            .context(|| format!("write bundle {}", self.path.display()))
    }

    /// Remembers, for the next daemon, where that shim listens.
    pub(crate) fn remember_bootstrap(&self, bootstrap: &Bootstrap) -> Result<()> {
        let json = serde_json::to_vec(bootstrap).map_err(|e| Error::internal(e.to_string()))?;
        fs::write(self.path.join("bootstrap.json"), json)
            .context(|| format!("write bundle {}", self.path.display()))
    }

    /// The shim that serves this bundle.
    pub(crate) fn runtime(&self) -> Result<Runtime> {
        match fs::read(self.path.join("shim-binary-path")) {
            Ok(path) => Ok(Runtime::Foreign(std::ffi::OsString::from_vec(path).into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Runtime::Own),
            Err(error) => Err(error).context(|| format!("read bundle {}", self.path.display())),
        }
    }

    /// Where the foreign shim that serves this bundle listens; `None` if it never said so. Where
    /// what it said is damaged, what it wrote itself is believed.
    pub(crate) fn bootstrap(&self) -> Result<Option<Bootstrap>> {
        let path = self.path.join("bootstrap.json");
        let json = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            json => json.context(|| format!("read {}", path.display()))?,
        };
        serde_json::from_slice(&json)
            .map_err(|error| Error::data_loss(format!("read {}: {error}", path.display())))
            .or_else(|error| {
                let address = fs::read(self.address()).map_err(|_| error)?;
                Bootstrap::parse(&address)
            })
            .map(Some)
    }

    /// Removes the bundle and the socket of a dead shim of ours, as far as they are there. What is mounted on the root
    /// file system's directory is detached; what then is in it is not ours to delete.
    pub(crate) fn remove(&self) -> Result<()> {
        let what = || format!("remove bundle {}", self.path.display());
        let rootfs = self.rootfs();
        while rustix::mount::unmount(&rootfs, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok()
        {
        }
        // The shim may have other containers, and otherwise removes it itself.
        if let Some(socket) = self.socket().filter(|socket| UnixStream::connect(socket).is_err()) {
            absent_is_fine(fs::remove_file(socket)).context(what)?;
        }
        absent_is_fine(fs::remove_dir(&rootfs)).context(what)?;
        absent_is_fine(fs::remove_dir_all(&self.path)).context(what)
    }
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// All bundles of tasks, or of sandboxes, on disk, in no order.
///
/// # Errors
/// When the directory can't be read. That it isn't there means that there are none.
pub(crate) fn all(config: &Config, owner: Owner) -> Result<Vec<Bundle>> {
    let mut bundles = Vec::new();
    for namespace in directories(&config.bundles(owner))? {
        for id in directories(&config.bundles(owner).join(&namespace))? {
            bundles.push(Bundle::of(config, owner, &namespace, &id));
        }
    }
    Ok(bundles)
}

/// The names of the directories in `path`. Names that are not UTF-8 are none of ours.
fn directories(path: &Path) -> Result<Vec<String>> {
    let what = || format!("list {}", path.display());
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(what),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context(what)?;
        if entry.file_type().context(what)?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}
