//! `linux.seccomp`: the filter of system calls, and the agent that answers in the kernel's place
//! where a profile says so (`SCMP_ACT_NOTIFY`, `seccomp_unotify(2)`).
//!
//! The agent is a program of the host that listens on a socket. The shim connects to it, because
//! the path is the host's, and gives the connection to the process along with the word to start;
//! the process sends the filter's listener through it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use berth_sys::{seccomp, socket};
use berth_types::spec::Seccomp;
use berth_types::{Error, Result, ResultExt};
use serde_json::value::RawValue;
use tokio::net::UnixStream;

use super::about::About;
use super::{hooks, newborn};

/// How long the agent may take to be there.
const CONNECTED: Duration = Duration::from_secs(10);

/// A checked profile.
#[derive(Debug)]
pub(super) struct Filter {
    program: seccomp::Program,
    agent: Option<Agent>,
}

#[derive(Debug)]
struct Agent {
    path: PathBuf,
    metadata: Option<String>,
}

impl Filter {
    /// Checks and compiles `profile`.
    pub(super) fn check(profile: &Seccomp) -> Result<Self> {
        let invalid = |why| Error::invalid_argument(format!("linux.seccomp.{why}"));
        let program = seccomp::compile(profile).context(|| "linux.seccomp")?;
        let path = profile.listener_path.as_deref().filter(|path| !path.is_empty());
        let agent = match (path, program.notifies()) {
            (Some(path), true) if path.starts_with('/') => {
                let metadata = profile.listener_metadata.clone();
                Some(Agent { path: PathBuf::from(path), metadata })
            }
            (Some(_), true) => return Err(invalid("listenerPath is not an absolute path")),
            (Some(_), false) => return Err(invalid("listenerPath: no action is SCMP_ACT_NOTIFY")),
            (None, true) => return Err(invalid("listenerPath is missing for SCMP_ACT_NOTIFY")),
            (None, false) => None,
        };
        Ok(Self { program, agent })
    }

    /// A connection to the agent, if there is one.
    pub(super) async fn connect(&self) -> Result<Option<OwnedFd>> {
        let Some(Agent { path, .. }) = &self.agent else { return Ok(None) };
        let what = || format!("connect to linux.seccomp.listenerPath {}", path.display());
        let connect = async { UnixStream::connect(path).await.context(what) };
        let stream =
            newborn::in_time(CONNECTED, "connecting to the seccomp agent", connect).await?;
        let stream = stream.into_std().context(what)?;
        stream.set_nonblocking(false).context(what)?;
        Ok(Some(stream.into()))
    }

    /// What the agent, if there is one, is told of process `pid` of the container `about`.
    pub(super) fn introduction(&self, about: &About, status: &str, pid: i32) -> Result<String> {
        let Some(agent) = &self.agent else { return Ok(String::new()) };
        let state = RawValue::from_string(hooks::state(about, status, Some(pid)));
        let state = state.map_err(|error| Error::internal(error.to_string()))?;
        let introduction = Introduction {
            oci_version: &about.oci_version,
            fds: ["seccompFd"],
            pid,
            metadata: agent.metadata.as_deref().unwrap_or_default(),
            state,
        };
        serde_json::to_string(&introduction).map_err(|error| Error::internal(error.to_string()))
    }

    /// Puts the filter in force for the caller, and sends the listener to `agent`.
    pub(super) fn install(&self, agent: Option<&OwnedFd>, introduction: &str) -> Result<()> {
        let listener = self.program.install().context(|| "install the system call filter")?;
        match (&listener, agent) {
            (Some(listener), Some(agent)) => {
                // From here on the agent may have to answer for the caller.
                socket::send(agent.as_fd(), introduction.as_bytes(), &[listener.as_fd()])
                    .context(|| "speak to the seccomp agent")
            }
            _ => Ok(()),
        }
    }
}

/// The specification's container process state.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Introduction<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    metadata: &'a str,
    state: Box<RawValue>,
}
