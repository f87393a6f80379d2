//! A real daemon on a scratch root, for the length of a test.

#![allow(dead_code, missing_docs, reason = "each test binary uses a part of the harness")]

pub(crate) mod archive;
pub(crate) mod registry;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};

/// The daemon's program.
pub(crate) const BERTHD: &str = env!("CARGO_BIN_EXE_berthd");

/// A running daemon, which is stopped at the end.
pub(crate) struct Daemon {
    process: Option<Child>,
    directory: TempDir,
    /// What the daemon's environment has besides the test's.
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

impl Daemon {
    /// Starts a daemon in a new directory and waits until it serves.
    pub(crate) fn start() -> Self {
        let mut daemon = Self::new();
        daemon.boot();
        daemon
    }

    /// A new directory for a daemon.
    pub(crate) fn new() -> Self {
        Self { process: None, directory: TempDir::new().unwrap(), environment: Vec::new() }
    }

    /// Starts the daemon on its directory, where none runs.
    pub(crate) fn boot(&mut self) {
        assert!(self.process.is_none());
        let mut process = self.command().stdin(Stdio::null()).spawn().unwrap();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = process.try_wait().unwrap() {
                panic!("the daemon ended before it served: {status}");
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.process = Some(process);
    }

    /// The command line of a daemon on this directory.
    pub(crate) fn command(&self) -> Command {
        self.command_on("root", "state", "b.sock")
    }

    /// The command line of a daemon with other names than this one's.
    pub(crate) fn command_on(&self, root: &str, state: &str, socket: &str) -> Command {
        let mut command = Command::new(BERTHD);
        command.arg("--root").arg(self.path(root)).arg("--state").arg(self.path(state));
        command.arg("--address").arg(self.path(socket)).env_remove("RUST_LOG");
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Sends `signal` and waits until the daemon has ended. Returns its exit code, if it had one.
    pub(crate) fn stop(&mut self, signal: Signal) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        kill_process(Pid::from_child(&process), signal).unwrap();
        let status = process.wait().unwrap();
        assert!(status.code().is_some() || status.signal() == Some(signal.as_raw()));
        status.code()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path("root")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("b.sock")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the stock client `ctr` against this daemon.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> Output {
        Command::new("ctr").arg("--address").arg(self.socket()).args(arguments).output().unwrap()
    }

    /// As [`ctr`](Self::ctr), for what must succeed. Returns its standard output.
    #[track_caller]
    pub(crate) fn ctr_ok(&self, arguments: &[&str]) -> String {
        let output = self.ctr(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "ctr {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// As [`ctr`](Self::ctr), for what must fail. Returns its standard error.
    #[track_caller]
    pub(crate) fn ctr_fails(&self, arguments: &[&str]) -> String {
        let output = self.ctr(arguments);
        assert!(!output.status.success(), "ctr {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A connection for generated clients.
    pub(crate) async fn channel(&self) -> Channel {
        connect(&self.socket()).await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.stop(Signal::TERM);
        }
    }
}

/// Connects to the socket at `path`.
pub(crate) async fn connect(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(path).await?;
            std::io::Result::Ok(hyper_util::rt::TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

/// A request in the namespace `namespace`.
pub(crate) fn in_namespace<T>(namespace: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let value = MetadataValue::try_from(namespace).unwrap();
    request.metadata_mut().insert("containerd-namespace", value);
    request
}
