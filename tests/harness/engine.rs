//! The daemon under test.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{Finished, Running, wait_until};
use crate::{Image, leaks};

/// Whose daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// berth's.
    Berth,
    /// Debian's containerd.
    Containerd,
}

/// The name of the configuration file that a test may write.
const CONFIG: &str = "config.toml";

/// A daemon on scratch directories, with a namespace of its own.
pub struct Engine {
    flavor: Flavor,
    namespace: String,
    directory: TempDir,
    /// In memory, as `/run` is.
    state: TempDir,
    root: PathBuf,
    programs: Option<PathBuf>,
    daemon: Option<Running>,
}

/// The program `name` of this workspace, as it was built with this one.
pub fn built(name: &str) -> PathBuf {
    binaries().join(name)
}

/// The directory of the binaries that were built with this program: `target/PROFILE`, where a
/// test lies below in `deps`.
fn binaries() -> PathBuf {
    let program = std::env::current_exe().expect("this program's own path");
    let directory = program.parent().expect("a path of a file");
    match directory.ends_with("deps") {
        true => directory.parent().expect("target/PROFILE/deps").to_owned(),
        false => directory.to_owned(),
    }
}

impl Engine {
    /// The engine that the environment asks for: berth, or containerd with `ENGINE=containerd`.
    pub fn start() -> Self {
        Self::start_flavor(Self::asked_for())
    }

    fn asked_for() -> Flavor {
        match std::env::var("ENGINE").as_deref() {
            Ok("containerd") => Flavor::Containerd,
            Ok("berth") | Err(_) => Flavor::Berth,
            Ok(other) => panic!("ENGINE={other}: give berth or containerd"),
        }
    }

    /// berth's daemon, whatever the environment asks for; `None` when that is containerd, for
    /// tests of what only berth has.
    pub fn berth() -> Option<Self> {
        let engine = std::env::var("ENGINE").unwrap_or_default();
        (engine != "containerd").then(|| Self::start_flavor(Flavor::Berth))
    }

    /// berth's daemon, not started yet: for tests that prepare what it starts on.
    pub fn prepare() -> Option<Self> {
        let engine = std::env::var("ENGINE").unwrap_or_default();
        (engine != "containerd").then(|| Self::new(Flavor::Berth))
    }

    /// The daemon that the environment asks for, not started yet.
    pub fn prepare_any() -> Self {
        Self::new(Self::asked_for())
    }

    /// A daemon of one flavor, not started yet.
    pub fn prepare_flavor(flavor: Flavor) -> Self {
        Self::new(flavor)
    }

    /// A daemon of one flavor.
    pub fn start_flavor(flavor: Flavor) -> Self {
        let mut engine = Self::new(flavor);
        engine.start_daemon();
        engine
    }

    fn new(flavor: Flavor) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("test-{}-{number}", std::process::id());
        // Short, because socket paths are: unix(7) ends at 107 bytes.
        let scratch =
            |parent| tempfile::Builder::new().prefix("bt").tempdir_in(parent).expect("a directory");
        let directory = scratch("/tmp");
        let root = directory.path().join("root");
        Self {
            flavor,
            namespace,
            directory,
            state: scratch("/dev/shm"),
            root,
            programs: None,
            daemon: None,
        }
    }

    /// Gives the daemon another durable directory, from its next start.
    pub fn set_root(&mut self, root: PathBuf) {
        self.root = root;
    }

    /// Works in another namespace than this test's own, which must be nobody else's.
    pub fn set_namespace(&mut self, namespace: &str) {
        namespace.clone_into(&mut self.namespace);
    }

    /// Lets the daemon find programs in `directory`, from its next start.
    pub fn add_to_path(&mut self, directory: PathBuf) {
        self.programs = Some(directory);
    }

    /// Writes the daemon's configuration, for its next start.
    pub fn configure(&self, toml: &str) {
        fs::write(self.path(CONFIG), toml).expect("write the configuration");
    }

    /// Starts the daemon, again after [`Engine::stop_daemon`], and waits until it takes connections.
    pub fn start_daemon(&mut self) {
        let log = self.path("log");
        self.daemon = Some(Running::start(&mut self.daemon_command(), &log));
        wait_until("the daemon to take connections", || {
            let ended = self.daemon.as_mut().is_some_and(Running::has_ended);
            assert!(!ended, "the daemon ended:\n{}", self.log());
            UnixStream::connect(self.address()).is_ok()
        });
    }

    /// The daemon's command line.
    pub fn daemon_command(&self) -> Command {
        let mut command = match self.flavor {
            Flavor::Berth => {
                let mut command = Command::new(binaries().join("berthd"));
                if self.path(CONFIG).exists() {
                    command.arg("--config").arg(self.path(CONFIG));
                }
                command
            }
            Flavor::Containerd => {
                let mut command = Command::new("containerd");
                let own = self.path(CONFIG);
                let none = PathBuf::from("/dev/null");
                command.arg("--config").arg(if own.exists() { own } else { none });
                command
            }
        };
        // containerd finds the shims under test on PATH.
        let path = std::env::var("PATH").unwrap_or_default();
        let own = self.programs.iter().map(|directory| format!("{}:", directory.display()));
        let own: String = own.collect();
        command.env("PATH", format!("{own}{}:{path}", binaries().display()));
        command.arg("--root").arg(self.root()).arg("--state").arg(self.state.path());
        command.arg("--address").arg(self.address());
        command
    }

    /// Ends the daemon by `signal` and waits for its end; containers go on.
    pub fn stop_daemon(&mut self, signal: Signal) -> i32 {
        self.daemon.take().map_or(0, |mut daemon| daemon.stop(signal))
    }

    /// The daemon's process id.
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").pid()
    }

    /// The peak of the daemon's memory since [`Engine::forget_peak`], in kB.
    pub fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon_pid()));
        let status = status.expect("read the daemon's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
    }

    /// Lets the peak of the daemon's memory be what it has now.
    pub fn forget_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.daemon_pid());
        fs::write(path, "5").expect("clear the peak");
    }

    /// Whose daemon it is.
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// The containerd namespace that only this test uses.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The main socket.
    pub fn address(&self) -> PathBuf {
        self.state.path().join("d.sock")
    }

    /// The durable directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How many layers and containers' trees berth keeps, whatever the snapshotter.
    pub fn snapshots(&self) -> usize {
        let entries = |path: &Path| fs::read_dir(path).expect("a directory").map(Result::unwrap);
        let snapshotters = entries(&self.root.join("snapshots"));
        snapshotters.map(|snapshotter| entries(&snapshotter.path()).count()).sum()
    }

    /// A path in this engine's scratch directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Runs Debian's `ctr` against this daemon.
    pub fn ctr(&self, args: &[&str]) -> Finished {
        self.ctr_with_input(args, b"")
    }

    /// Runs Debian's `ctr` with `input` on standard input.
    pub fn ctr_with_input(&self, args: &[&str], input: &[u8]) -> Finished {
        Finished::run("ctr", &self.with_address(args), input)
    }

    /// Runs Debian's `ctr` on a terminal of 33 rows and 99 columns, which script(1) makes. Its
    /// output is given without what the terminal adds.
    pub fn ctr_on_terminal(&self, args: &[&str]) -> Finished {
        let quoted: Vec<_> = self.with_address(args).iter().map(|arg| format!("'{arg}'")).collect();
        let line = format!("stty rows 33 cols 99; ctr {}", quoted.join(" "));
        let mut finished = Finished::run("script", &["-qec", &line, "/dev/null"], b"");
        finished.stdout = finished.stdout.replace("^@", "").replace('\r', "");
        finished
    }

    /// Starts Debian's `ctr` in the background, with its output in the file `log`.
    pub fn ctr_in_background(&self, args: &[&str], log: &Path) -> Running {
        Running::start(Command::new("ctr").args(self.with_address(args)), log)
    }

    /// Runs `berth` against this daemon.
    pub fn cli(&self, args: &[&str]) -> Finished {
        self.cli_with_input(args, b"")
    }

    /// Runs `berth` with `input` on standard input.
    pub fn cli_with_input(&self, args: &[&str], input: &[u8]) -> Finished {
        let all = self.with_address(args);
        Finished::run(binaries().join("berth"), &all, input)
    }

    /// The command line of `berth` against this daemon, for tests that run it in other ways.
    pub fn cli_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binaries().join("berth"));
        command.args(self.with_address(args));
        command
    }

    /// The flags that `ctr` and `berth` share, before `args`.
    fn with_address(&self, args: &[&str]) -> Vec<String> {
        let address = self.address().display().to_string();
        let namespace = self.namespace.clone();
        let mut all = vec!["--address".to_owned(), address, "--namespace".to_owned(), namespace];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        all
    }

    /// Imports `image` through `ctr`, so that it can be run.
    pub fn import(&self, image: &Image) {
        let archive = self.path("import.tar");
        fs::write(&archive, image.archive()).expect("write an archive");
        self.ctr(&["images", "import", archive.to_str().expect("a path")]).success();
        fs::remove_file(&archive).expect("remove the archive");
    }

    /// What berth keeps and is not whole, a line each. Tests of the API name content that is not
    /// there.
    fn damaged(&self) -> Vec<String> {
        if self.flavor != Flavor::Berth {
            return Vec::new();
        }
        let check = self.cli(&["system", "check"]);
        let lines = check.stdout.lines().filter(|line| {
            let kinds = ["blob ", "layer ", "snapshot ", "file "];
            kinds.iter().any(|kind| line.starts_with(kind)) && !line.contains(": missing; used by ")
        });
        let failure = check.stderr.lines();
        lines.chain(failure).map(str::to_owned).collect()
    }

    /// Ends and removes every container of this test's namespace, as a tidy user would.
    pub fn remove_containers(&self) {
        for container in self.ctr(&["containers", "ls", "-q"]).stdout.lines() {
            self.ctr(&["tasks", "rm", "-f", container]);
            self.ctr(&["containers", "rm", container]);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
        // A daemon that does not start may be why the test failed: a second panic would hide it.
        if self.daemon.is_none() && !failed {
            self.start_daemon();
        }
        self.remove_containers();
        // Asked before the daemon is stopped: a daemon that is gone can't be blamed for cleaning
        // up late.
        let places = [self.directory.path(), self.state.path()];
        let left = leaks::wait_for_none(&self.namespace, places);
        let damaged = if failed { Vec::new() } else { self.damaged() };
        if let Some(mut daemon) = self.daemon.take() {
            daemon.stop(Signal::SIGTERM);
        }
        leaks::remove(&self.namespace, places);
        if !failed {
            assert!(left.is_empty(), "left behind:\n{}\n{}", left.join("\n"), self.log());
            assert!(damaged.is_empty(), "damaged:\n{}\n{}", damaged.join("\n"), self.log());
        }
    }
}
