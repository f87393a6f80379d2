//! Containers: creating their processes, starting, joining and destroying them.
//!
//! What other engines leave to a runtime program happens here, in the shim itself: it clones the
//! container's first process straight into its namespaces, and that process arranges its
//! filesystem, rights and limits before it becomes the program (see [`handshake`]). Nothing here
//! waits for a process that it has returned: that is for the shim's reaper.
//!
//! The caller must have one thread, and all of it runs on a current-thread runtime.

mod about;
mod account;
mod beside;
mod cgroup_mounts;
mod clocks;
mod config;
mod console;
mod copy_up;
mod create;
mod devices;
mod exec;
mod existing;
mod filter;
mod freeze;
mod guide;
mod handshake;
mod hooks;
mod id_maps;
mod identity;
mod init;
mod label;
mod last_steps;
mod limits;
mod lists;
mod masks;
mod mount_options;
mod mounts;
mod namespaces;
mod net_devices;
mod newborn;
mod owners;
mod place;
mod plan;
mod program;
mod remains;
mod root_owners;
mod rootfs;
mod scheduling;
mod signal;
mod start;
mod sysctl;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_sys::cgroup::Cgroup;
use berth_sys::namespace::Namespaces;
use berth_types::Result;
use berth_types::spec::{self, Spec};

use about::About;
use filter::Filter;
use handshake::{Go, ShimEnd};

pub use config::{parse, read_spec};
pub use exec::ExecOptions;
pub use existing::Existing;
pub use freeze::freeze;
pub use plan::cgroup_path;
pub use remains::Remains;
pub use signal::signal_all;

/// What a container is created from.
#[derive(Debug)]
pub struct CreateRequest {
    /// Its id.
    pub id: String,
    /// The directory of its bundle, absolute.
    pub bundle: PathBuf,
    /// What is mounted, in this order, at the root directory that the spec names; nothing if that
    /// is there already. Destinations are not looked at.
    pub rootfs: Vec<spec::Mount>,
    /// The checked-in `config.json`.
    pub spec: Spec,
    /// The streams of its first process.
    pub io: Io,
    /// It shares the shim's session keyring.
    pub no_new_keyring: bool,
    /// Its root is not pivoted to but moved over the host's.
    pub no_pivot: bool,
    /// How many further descriptors of the caller's its first process keeps, from 3 on.
    pub preserved_fds: u32,
    /// A listening socket at which the first process waits for [`Existing`] to start it, once it
    /// was left there: [`Container::leave`] and not [`Container::start`] is for the value that is
    /// returned.
    pub gate: Option<OwnedFd>,
}

/// The standard streams that a process gets.
#[derive(Debug)]
pub enum Io {
    /// These.
    Pipes(Stdio),
    /// A new terminal of the container's, whose master comes back as [`Process::terminal`].
    Terminal,
}

/// Three streams.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// A process of a container.
#[derive(Debug)]
pub struct Process {
    /// Its id in the shim's pidns. It is a child of the shim.
    pub pid: i32,
    /// Refers to it for good.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// A container whose first process was started and may have ended.
#[derive(Debug)]
pub struct Container {
    remains: Remains,
    filter: Option<Filter>,
    /// The kinds of kernel namespaces that may differ from the caller's.
    namespaces: Namespaces,
    init: Process,
    /// Leads to the first process until it becomes the program.
    channel: Option<ShimEnd>,
}

impl Container {
    /// The first process. The terminal is there until somebody takes it.
    pub fn init(&self) -> &Process {
        &self.init
    }

    /// Hands over the master of the first process's terminal.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.init.terminal.take()
    }

    /// Leaves the first process to whoever comes to its gate: it outlives the caller from now on.
    ///
    /// # Errors
    /// When it can't be told. That it is dead is no failure.
    pub fn leave(&mut self) -> Result<()> {
        self.channel.take().map_or(Ok(()), |channel| channel.go(Go::Left))
    }

    /// Its control group: limits, figures, freezing, killing.
    pub fn cgroup(&self) -> &Cgroup {
        &self.remains.cgroup
    }

    /// Destroys it with its first process, which has ended or is killed now.
    ///
    /// # Errors
    /// As [`Remains::destroy`].
    pub async fn destroy(self) -> Result<()> {
        self.remains.destroy().await
    }

    fn about(&self) -> &About {
        &self.remains.about
    }
}
