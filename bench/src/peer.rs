//! The engines that are measured.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use berth_tests::{Engine, Finished, Flavor, Image, Running, wait_until};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::IMAGE;

/// An engine that runs on scratch directories.
pub(crate) enum Peer {
    /// berth's or containerd's daemon.
    Containerd(Engine),
    /// Docker's daemon.
    Docker(Docker),
}

/// Docker's daemon without networks, which the figures are not about.
pub(crate) struct Docker {
    directory: TempDir,
    daemon: Running,
}

impl Peer {
    /// berth first, then those that are installed.
    pub(crate) fn find_all() -> Result<Vec<Self>> {
        let mut peers = vec![Self::Containerd(Engine::start_flavor(Flavor::Berth))];
        if is_installed("containerd") && is_installed("ctr") && is_installed("runc") {
            peers.push(Self::Containerd(Engine::start_flavor(Flavor::Containerd)));
        }
        if is_installed("dockerd") && is_installed("docker") {
            peers.push(Self::Docker(Docker::start()?));
        }
        for peer in &peers {
            peer.load(&Image::busybox(IMAGE))?;
        }
        Ok(peers)
    }

    /// The heading of its column.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Containerd(engine) if engine.flavor() == Flavor::Berth => "berth",
            Self::Containerd(_) => "containerd + runc",
            Self::Docker(_) => "Docker",
        }
    }

    /// A foreground `run --rm` of `command`.
    pub(crate) fn run(&self, id: &str, command: &[&str]) -> Result<()> {
        let args = match self {
            Self::Containerd(engine) if engine.flavor() == Flavor::Containerd => {
                vec!["run", "--rm", IMAGE, id]
            }
            _ => vec!["run", "--rm", "--network", "none", IMAGE],
        };
        self.tool(&[&args, command].concat())
    }

    /// Starts a container that goes on, named `id`.
    pub(crate) fn start(&self, id: &str) -> Result<()> {
        let args = match self {
            Self::Containerd(engine) if engine.flavor() == Flavor::Containerd => {
                vec!["run", "-d", IMAGE, id]
            }
            _ => vec!["run", "-d", "--network", "none", "--name", id, IMAGE],
        };
        self.tool(&[&args[..], &["sleep", "100000"]].concat())
    }

    /// Runs `command` in a container that was started.
    pub(crate) fn exec(&self, id: &str, exec_id: &str, command: &[&str]) -> Result<()> {
        let args = match self {
            Self::Containerd(engine) if engine.flavor() == Flavor::Containerd => {
                vec!["tasks", "exec", "--exec-id", exec_id, id]
            }
            _ => vec!["exec", id],
        };
        self.tool(&[&args, command].concat())
    }

    /// Ends and removes a container.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        match self {
            Self::Containerd(engine) if engine.flavor() == Flavor::Containerd => {
                self.tool(&["tasks", "rm", "-f", id])?;
                self.tool(&["containers", "rm", id])
            }
            _ => self.tool(&["rm", "-f", id]),
        }
    }

    /// Fetches an image.
    pub(crate) fn pull(&self, reference: &str) -> Result<()> {
        match self {
            Self::Containerd(engine) if engine.flavor() == Flavor::Containerd => {
                self.tool(&["images", "pull", "--plain-http", reference])
            }
            _ => self.tool(&["pull", reference]),
        }
    }

    /// Removes an image and gives its space back.
    pub(crate) fn remove_image(&self, reference: &str) -> Result<()> {
        match self {
            Self::Containerd(engine) if engine.flavor() == Flavor::Containerd => {
                self.tool(&["images", "rm", "--sync", reference])
            }
            _ => self.tool(&["rmi", reference]),
        }
    }

    /// The process ids of the daemon.
    pub(crate) fn daemon_pid(&self) -> u32 {
        match self {
            Self::Containerd(engine) => engine.daemon_pid(),
            Self::Docker(docker) => docker.daemon.pid(),
        }
    }

    /// The process ids of the shims.
    pub(crate) fn shim_pids(&self) -> Vec<u32> {
        let namespace = match self {
            Self::Containerd(engine) => engine.namespace(),
            Self::Docker(_) => "moby",
        };
        berth_tests::leaks::shims(namespace).into_iter().map(|pid| pid as u32).collect()
    }

    /// Runs the engine's own command-line tool.
    fn tool(&self, args: &[&str]) -> Result<()> {
        let finished = match self {
            Self::Containerd(engine) if engine.flavor() == Flavor::Berth => engine.cli(args),
            Self::Containerd(engine) => engine.ctr(args),
            Self::Docker(docker) => docker.run(args),
        };
        // `ctr tasks rm -f` answers with the killed task's own status.
        let killed = args.first() == Some(&"tasks") && finished.code == 137;
        if finished.code != 0 && !killed {
            bail!("{}: {}", finished.command, finished.stderr);
        }
        Ok(())
    }

    fn load(&self, image: &Image) -> Result<()> {
        match self {
            Self::Containerd(engine) => engine.import(image),
            Self::Docker(docker) => {
                let finished = docker.run_with_input(&["load"], &image.docker_archive());
                if finished.code != 0 {
                    bail!("{}: {}", finished.command, finished.stderr);
                }
            }
        }
        Ok(())
    }
}

impl Docker {
    fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bd").tempdir_in("/tmp")?;
        let path = |name: &str| directory.path().join(name);
        let mut command = Command::new("dockerd");
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.arg("--data-root").arg(path("root")).arg("--exec-root").arg(path("exec"));
        command.arg("--pidfile").arg(path("pid"));
        command.arg("--host").arg(format!("unix://{}", path("d.sock").display()));
        let daemon = Running::start(&mut command, &path("log"));
        let docker = Self { directory, daemon };
        wait_until("Docker's daemon", || docker.run(&["version"]).code == 0);
        Ok(docker)
    }

    fn run(&self, args: &[&str]) -> Finished {
        self.run_with_input(args, b"")
    }

    fn run_with_input(&self, args: &[&str], input: &[u8]) -> Finished {
        let host = format!("unix://{}", self.directory.path().join("d.sock").display());
        Finished::run("docker", &[&["--host", &host], args].concat(), input)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.daemon.stop(Signal::SIGTERM);
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|directory: PathBuf| directory.join(program));
    places.any(|place| place.is_file())
}
