//! What is kept of containers between commands.
//!
//! ```text
//! ROOT/ID/             0700
//!   config.json        the spec that the container was created from: later changes to the
//!                      bundle's are not its own
//!   gate               the socket at which the first process waits to be started
//!   state.json         written last, by a rename: without it there is no container yet
//! ```
//!
//! Who creates a container holds a lock on its directory; so does its process until it is started.
//! The process ends with its creator until the state is there. A directory without a state that
//! nobody has locked is what a killed `create` left.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_sys::socket;
use berth_types::spec::Spec;
use berth_types::{Error, Result, ResultExt, id};
use containerd_shim_berth_v1::container::{Container, Existing, Remains};
use serde::{Deserialize, Serialize};

use crate::life::Life;
use crate::{lock, removal};

/// The file of the spec.
pub(crate) const CONFIG: &str = "config.json";
const GATE: &str = "gate";
/// The file of the state.
pub(crate) const STATE: &str = "state.json";

/// The directory of all containers.
#[derive(Debug)]
pub(crate) struct Records {
    root: PathBuf,
}

/// A container that is being created.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    /// Locked for as long as it is open.
    directory: File,
}

/// A container as it was created.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// See [`crate::life`].
    pub(crate) start_time: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// RFC 3339.
    pub(crate) created: String,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Where a container stands. It is never stored but found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// The specification's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A recorded container with what was found of it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) path: PathBuf,
    life: Option<Life>,
    /// Locks it for the one command that has it.
    pub(crate) claim: Option<File>,
}

impl Records {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where container `id` is kept.
    ///
    /// # Errors
    /// InvalidArgument when that is no id.
    pub(crate) fn directory(&self, id: &str) -> Result<PathBuf> {
        id::validate_for_runtime("container id", id)?;
        Ok(self.root.join(id))
    }

    /// Takes `id` for a container to be created from `spec`.
    ///
    /// # Errors
    /// AlreadyExists when there is such a container, or one on its way.
    pub(crate) fn draft(&self, id: &str, spec: &Spec) -> Result<Draft> {
        let path = self.directory(id)?;
        let what = || format!("make {}", path.display());
        let taken = || Error::already_exists(format!("container with id {id} exists already"));
        let directory = loop {
            // One that is there may be what a killed create left.
            match DirBuilder::new().mode(0o700).recursive(true).create(&path) {
                // It was removed before that saw that it is a directory.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && !is_file(&path) => {}
                made => made.context(what)?,
            }
            match lock::take(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                locked => break locked.context(what)?.ok_or_else(taken)?,
            }
        };
        if path.join(STATE).exists() {
            return Err(taken());
        }
        // What a killed create left.
        let _ = fs::remove_file(path.join(GATE));
        let spec = serde_json::to_vec(spec).unwrap_or_default();
        fs::write(path.join(CONFIG), spec).context(|| format!("write {CONFIG}"))?;
        Ok(Draft { path, directory })
    }

    /// The container `id`.
    ///
    /// # Errors
    /// NotFound when there is none.
    pub(crate) fn find(&self, id: &str) -> Result<Found> {
        let path = self.directory(id)?;
        let file = path.join(STATE);
        let text = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(no_such(id));
            }
            text => text.context(|| format!("read {}", file.display()))?,
        };
        let record: Record = serde_json::from_slice(&text)
            .map_err(|error| Error::internal(format!("read {}: {error}", file.display())))?;
        let life = Life::find(record.pid, record.start_time);
        Ok(Found { record, path, life, claim: None })
    }

    /// All containers, by their ids.
    ///
    /// # Errors
    /// When the root directory can't be read; that it isn't there is none.
    pub(crate) fn all(&self) -> Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(|| format!("list {}", self.root.display()))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        // One that is deleted meanwhile is none.
        let mut all: Vec<Found> = names.filter_map(|name| self.find(&name).ok()).collect();
        all.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        Ok(all)
    }
}

/// Whether something else than a directory is at `path`.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|data| !data.is_dir())
}

impl Draft {
    /// Opens the gate that the first process is to wait at.
    pub(crate) fn gate(&self) -> Result<std::os::fd::OwnedFd> {
        socket::listen(self.directory.as_fd(), GATE)
            .context(|| format!("listen in {}", self.path.display()))
    }

    /// The container is there.
    ///
    /// # Errors
    /// When it can't be recorded.
    pub(crate) fn complete(&self, record: &Record) -> Result<()> {
        let what = || format!("write {STATE} in {}", self.path.display());
        let text = serde_json::to_vec(record).unwrap_or_default();
        let fresh = self.path.join(".state.json");
        File::create(&fresh).and_then(|mut file| file.write_all(&text)).context(what)?;
        fs::rename(&fresh, self.path.join(STATE)).context(what)
    }

    /// There is to be no container.
    ///
    /// # Errors
    /// When the files can't be removed.
    pub(crate) fn abandon(self) -> Result<()> {
        removal::remove(&self.path)
    }
}

impl Found {
    /// Where the container stands.
    ///
    /// # Errors
    /// When the control group can't be looked at.
    pub(crate) fn status(&self) -> Result<Status> {
        if self.life.is_none() {
            return Ok(Status::Stopped);
        }
        // Before it is started, a container may be paused too: nobody answers at its gate then, and
        // who knocks too often would wait for ever.
        if self.remains()?.cgroup().is_frozen()? {
            return Ok(Status::Paused);
        }
        match self.connect()?.is_some() {
            true => Ok(Status::Created),
            false => Ok(Status::Running),
        }
    }

    /// The first process, while it is there.
    pub(crate) fn life(&self) -> Option<&Life> {
        self.life.as_ref()
    }

    /// A connection to the gate; `None` when it is closed, because the container was started.
    fn connect(&self) -> Result<Option<std::os::fd::OwnedFd>> {
        let directory = File::open(&self.path).context(|| "open the container's state");
        let directory = directory.map_err(|error| self.or_deleted(error))?;
        match socket::connect(directory.as_fd(), GATE) {
            Ok(connection) => Ok(Some(connection)),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(Error::io("connect to the container's gate", &error)),
            },
        }
    }

    /// The spec that it was created from.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn spec(&self) -> Result<Spec> {
        read_spec(&self.path.join(CONFIG)).map_err(|error| self.or_deleted(error))
    }

    /// `error`, unless it comes from another command's deleting the container meanwhile.
    fn or_deleted(&self, error: Error) -> Error {
        match self.path.join(STATE).exists() {
            true => error,
            false => no_such(&self.record.id),
        }
    }

    /// What is there without the first process.
    ///
    /// # Errors
    /// When its spec can't be read.
    pub(crate) fn remains(&self) -> Result<Remains> {
        Remains::find(&self.record.id, &self.record.bundle, &self.spec()?)
    }

    /// The container, to be started or joined.
    ///
    /// # Errors
    /// FailedPrecondition when it isn't running.
    pub(crate) fn container(self) -> Result<Container> {
        let (spec, gate) = (self.spec()?, self.connect()?);
        let Record { id, bundle, pid, .. } = self.record;
        let Some(Life { pidfd }) = self.life else {
            return Err(Error::failed_precondition("container not running"));
        };
        Container::find(Existing { id, bundle, spec, pid, pidfd, gate })
    }
}

fn no_such(id: &str) -> Error {
    Error::not_found(format!("container {id} does not exist"))
}

/// Reads a spec.
///
/// # Errors
/// InvalidArgument when it is none.
pub(crate) fn read_spec(path: &Path) -> Result<Spec> {
    containerd_shim_berth_v1::container::read_spec(path)
}
