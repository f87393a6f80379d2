//! What the tasks need to know of the daemon around them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::bundle::Owner;

/// Where things are. All paths are absolute.
#[derive(Clone, Debug)]
pub struct Config {
    /// The daemon's state directory. It must exist. Bundles and the sockets of our own shims are
    /// made below it; it goes with a reboot, as all tasks do.
    pub state: PathBuf,
    /// The daemon's gRPC socket, which shims are told of.
    pub address: PathBuf,
    /// Our own shim's binary.
    pub shim: PathBuf,
    /// Runtimes, by name, that are run by another binary than their name says.
    pub runtimes: BTreeMap<String, PathBuf>,
}

impl Config {
    /// Where shims send their events: the gRPC socket's path and `.ttrpc`.
    pub fn ttrpc_address(&self) -> PathBuf {
        let mut path = self.address.clone().into_os_string();
        path.push(".ttrpc");
        path.into()
    }

    /// Where the bundles are: one directory for each namespace, in it one for each task or
    /// sandbox. The names are containerd's.
    pub(crate) fn bundles(&self, owner: Owner) -> PathBuf {
        self.state.join(match owner {
            Owner::Task => "io.containerd.runtime.v2.task",
            Owner::Sandbox => "io.containerd.sandbox.controller.v1.shim",
        })
    }

    /// Where the sockets of our own shims are.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.state.join("s")
    }
}

/// The binary named `name`: beside this program, or else where `PATH` has it.
pub(crate) fn find_binary(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(std::env::split_paths(&path)).map(|dir| dir.join(name)).find(|file| {
        rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
    })
}

/// Where our own shim is installed: beside this program, or else on `PATH`.
pub fn find_own_shim() -> Option<PathBuf> {
    find_binary("containerd-shim-berth-v1")
}
