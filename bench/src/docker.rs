//! Docker's daemon, without networks, which the figures are not about.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use berth_tests::{Finished, Running};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon on scratch directories.
pub(crate) struct Docker {
    directory: TempDir,
    /// In memory, as `/run` is, like that of the other engines.
    state: TempDir,
    daemon: Running,
}

impl Docker {
    /// Starts the daemon and waits until it answers.
    pub(crate) fn start() -> Result<Self> {
        let scratch = |parent| tempfile::Builder::new().prefix("bd").tempdir_in(parent);
        let (directory, state) = (scratch("/tmp")?, scratch("/dev/shm")?);
        let path = |name: &str| directory.path().join(name);
        let mut command = Command::new("dockerd");
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.arg("--data-root").arg(path("root")).arg("--exec-root").arg(state.path());
        command.arg("--pidfile").arg(path("pid"));
        command.arg("--host").arg(format!("unix://{}", path("d.sock").display()));
        let daemon = Running::start(&mut command, &path("log"));
        let mut docker = Self { directory, state, daemon };
        docker.wait()?;
        Ok(docker)
    }

    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.run(&["version"]).code != 0 {
            if self.daemon.has_ended() || start.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.path("log"))?;
                bail!("it does not start: {}", log.lines().last().unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Runs the client.
    pub(crate) fn run(&self, words: &[&str]) -> Finished {
        let host = format!("unix://{}", self.path("d.sock").display());
        Finished::run("docker", &[&["--host", &host], words].concat(), b"")
    }

    /// The daemon, and the containerd that it runs.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let file = self.state.path().join("containerd/containerd.pid");
        let below = fs::read_to_string(file).ok().and_then(|pid| pid.trim().parse().ok());
        [Some(self.daemon.pid()), below].into_iter().flatten().collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.daemon.stop(Signal::SIGTERM);
    }
}
