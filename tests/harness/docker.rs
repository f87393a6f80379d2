//! Docker's daemon on top of an engine, without networks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use crate::{Engine, Finished, Image, Running};

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Debian's `dockerd`, which lets an [`Engine`] run its containers: in the engine's namespace, on
/// directories of the engine's. Drop it before the engine.
pub struct Docker {
    address: PathBuf,
    namespace: String,
    directory: PathBuf,
    daemon: Option<Running>,
}

impl Docker {
    /// Starts the daemon and waits until it answers.
    pub fn start(engine: &Engine) -> Self {
        let directory = engine.path("docker");
        fs::create_dir_all(&directory).expect("make a directory");
        let namespace = engine.namespace().to_owned();
        let mut docker = Self { address: engine.address(), namespace, directory, daemon: None };
        docker.start_daemon();
        docker
    }

    /// Starts the daemon, again after [`Docker::stop_daemon`].
    pub fn start_daemon(&mut self) {
        fs::write(self.path("config"), "{}").expect("write Docker's configuration");
        let log = self.path("log");
        self.daemon = Some(Running::start(&mut self.command(), &log));
        let start = Instant::now();
        while self.call(&["version"]).code != 0 {
            let ended = self.daemon.as_mut().is_some_and(Running::has_ended);
            let log = || fs::read_to_string(&log).unwrap_or_default();
            assert!(!ended, "dockerd ended:\n{}", log());
            assert!(start.elapsed() < PATIENCE, "dockerd does not answer:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the daemon by `signal`; with `--live-restore` containers go on.
    pub fn stop_daemon(&mut self, signal: Signal) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.stop(signal);
        }
    }

    fn command(&self) -> Command {
        let path = |name: &str| self.path(name).display().to_string();
        // Its rules for networks would be the host's.
        let mut command = Command::new("unshare");
        command.args(["--net", "dockerd", "--bridge=none", "--iptables=false"]);
        command.args(["--ip6tables=false", "--live-restore"]);
        command.arg("--containerd").arg(&self.address);
        command.args(["--containerd-namespace", &self.namespace]);
        // Docker wants two of them.
        command.args(["--containerd-plugins-namespace", &format!("{}-p", self.namespace)]);
        command.args(["--cgroup-parent", &format!("/{}", &self.namespace)]);
        command.args(["--config-file", &path("config"), "--pidfile", &path("pid")]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec")]);
        command.arg("--host").arg(self.host());
        command
    }

    /// Runs the client.
    pub fn call(&self, words: &[&str]) -> Finished {
        self.call_with_input(words, b"")
    }

    /// Runs the client with `input` on standard input.
    pub fn call_with_input(&self, words: &[&str], input: &[u8]) -> Finished {
        Finished::run(client(), &[&["--host", &self.host()], words].concat(), input)
    }

    /// Starts the client in the background, with its output in the file `log`.
    pub fn call_in_background(&self, words: &[&str], log: &Path) -> Running {
        let mut command = Command::new(client());
        Running::start(command.args(["--host", &self.host()]).args(words), log)
    }

    /// Loads `image` by its own name.
    pub fn load(&self, image: &Image) {
        self.call_with_input(&["load"], &image.docker_archive()).success();
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn host(&self) -> String {
        format!("unix://{}", self.path("sock").display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Docker's client, Debian's where it is installed.
fn client() -> &'static str {
    let debians = "/usr/bin/docker";
    if Path::new(debians).exists() { debians } else { "docker" }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- dockerd's log ---\n{}", self.log());
        }
        self.stop_daemon(Signal::SIGTERM);
        // While containers run it leaves its directory mounted on itself, once for each start.
        let data = self.path("data");
        while umount2(&data, MntFlags::MNT_DETACH).is_ok() {}
    }
}
