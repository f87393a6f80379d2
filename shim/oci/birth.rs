//! What `create` and `run` have in common: a container from a bundle.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_types::spec::Spec;
use berth_types::{Error, Result, ResultExt};
use containerd_shim_berth_v1::container::{self, Container, CreateRequest, Io};

use crate::life;
use crate::record::{Draft, Record, Records};
use crate::{streams, terminal};

/// The flags of both.
#[derive(Debug, clap::Args)]
pub(crate) struct Birth {
    /// The directory of the bundle; by default the working directory
    #[arg(short, long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// A socket that takes the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Write the process id there
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Don't pivot to the root filesystem, as where the host runs from the kernel's first one
    #[arg(long)]
    no_pivot: bool,
    /// Let the container have the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// How many descriptors the process keeps, from 3 on
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) preserve_fds: u32,
    /// The container's id
    pub(crate) id: String,
}

/// A container that was created.
pub(crate) struct Born {
    pub(crate) container: Container,
    /// The master of its terminal, unless a socket took it.
    pub(crate) terminal: Option<OwnedFd>,
}

impl Birth {
    /// The bundle's absolute path.
    fn bundle(&self) -> Result<PathBuf> {
        let given = self.bundle.as_deref().unwrap_or(Path::new("."));
        fs::canonicalize(given)
            .map_err(|error| Error::invalid_argument(format!("bundle {given:?}: {error}")))
    }

    /// Creates the container. A detached one may be started by any process later, by its record;
    /// else it is for the caller to start, and ends with the caller.
    ///
    /// # Errors
    /// As [`Container::create`]; nothing is left then.
    pub(crate) async fn create(&self, records: &Records, detached: bool) -> Result<Born> {
        let bundle = self.bundle()?;
        let spec = container::read_spec(&bundle.join("config.json"))?;
        let with_terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
        terminal::check(with_terminal, self.console_socket.as_deref(), detached)?;
        let draft = records.draft(&self.id, &spec)?;
        let born = self.create_drafted(bundle, spec, &draft, detached).await;
        if born.is_err() {
            draft.abandon()?;
        }
        born
    }

    async fn create_drafted(
        &self,
        bundle: PathBuf,
        mut spec: Spec,
        draft: &Draft,
        detached: bool,
    ) -> Result<Born> {
        let sockets = streams::handed_in();
        if let Some(process) = &mut spec.process {
            streams::announce(sockets, &mut process.env);
        }
        let with_terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
        let mut container = Container::create(CreateRequest {
            id: self.id.clone(),
            bundle: bundle.clone(),
            rootfs: Vec::new(),
            spec: spec.clone(),
            io: if with_terminal { Io::Terminal } else { streams::inherited()? },
            no_new_keyring: self.no_new_keyring,
            no_pivot: self.no_pivot,
            preserved_fds: sockets + self.preserve_fds,
            gate: detached.then(|| draft.gate()).transpose()?,
        })
        .await?;
        let terminal = container.take_terminal();
        let pid = container.init().pid;
        let kept = self.announce(bundle, &spec, pid, terminal).and_then(|(record, terminal)| {
            draft.complete(&record)?;
            if detached {
                container.leave()?;
            }
            Ok(terminal)
        });
        match kept {
            Ok(terminal) => Ok(Born { container, terminal }),
            Err(error) => Err(undo(container, self.pid_file.as_deref(), error).await),
        }
    }

    /// Tells those who want to know of the process `pid`.
    fn announce(
        &self,
        bundle: PathBuf,
        spec: &Spec,
        pid: i32,
        terminal: Option<OwnedFd>,
    ) -> Result<(Record, Option<OwnedFd>)> {
        let mut created = Vec::new();
        berth_logs::time::format(SystemTime::now(), &mut created);
        let root = spec.root.as_ref().map(|root| root.path.as_str()).unwrap_or_default();
        let record = Record {
            oci_version: spec.oci_version.clone(),
            id: self.id.clone(),
            pid,
            start_time: life::start_time(pid)?,
            rootfs: bundle.join(root),
            bundle,
            created: String::from_utf8_lossy(&created).into_owned(),
            annotations: spec.annotations.clone(),
        };
        let terminal = terminal::hand_over(terminal, self.console_socket.as_deref())?;
        if let Some(path) = &self.pid_file {
            write_pid(path, pid)?;
        }
        Ok((record, terminal))
    }
}

/// Takes a container back because of `error`, which is returned.
async fn undo(container: Container, pid_file: Option<&Path>, error: Error) -> Error {
    if let Some(path) = pid_file {
        let _ = fs::remove_file(path);
    }
    match container.destroy().await {
        Ok(()) => error,
        Err(also) => Error::new(error.kind(), format!("{}; {}", error.message(), also.message())),
    }
}

/// Writes `pid` to the file at `path`, which whoever waits for it sees whole.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let what = || format!("write the process id to {}", path.display());
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let fresh = path.with_file_name(name);
    fs::write(&fresh, pid.to_string()).context(what)?;
    fs::rename(&fresh, path).context(what)
}
