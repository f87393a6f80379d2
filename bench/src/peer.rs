//! The engines that are measured.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use berth_tests::{Engine, Flavor};

use crate::Bench;
use crate::docker::Docker;
use crate::tool::Tool;

/// An engine on scratch directories, with the image that containers are made of.
pub(crate) struct Peer {
    name: &'static str,
    daemon: Daemon,
    tool: Tool,
}

/// A daemon, stopped when dropped.
pub(crate) enum Daemon {
    /// berth's or containerd's.
    Containerd(Engine),
    /// Docker's.
    Docker(Docker),
}

/// An engine that may be measured.
struct Candidate {
    name: &'static str,
    programs: &'static [&'static str],
    start: fn() -> Result<Daemon>,
    tool: Tool,
}

const CANDIDATES: [Candidate; 3] = [
    Candidate {
        name: "berth",
        programs: &[],
        start: || Ok(Daemon::Containerd(Engine::start_flavor(Flavor::Berth))),
        tool: Tool::Berth,
    },
    Candidate {
        name: "containerd + runc",
        programs: &["containerd", "ctr", "runc"],
        start: || Ok(Daemon::Containerd(Engine::start_flavor(Flavor::Containerd))),
        tool: Tool::Ctr,
    },
    Candidate {
        name: "Docker",
        programs: &["dockerd", "docker", "runc"],
        start: || Docker::start().map(Daemon::Docker),
        tool: Tool::Docker,
    },
];

impl Peer {
    /// berth first, then those that are installed. One that does not start is left out, and why
    /// is said.
    pub(crate) fn find_all(bench: &Bench) -> Vec<Self> {
        let mut peers = Vec::new();
        let asked = CANDIDATES.iter().filter(|one| one.name.contains(&bench.arguments.engine));
        for candidate in asked {
            match Self::start_daemon(candidate, bench) {
                Ok(peer) => peers.push(peer),
                Err(error) => println!("Left out: {}: {error:#}.\n", candidate.name),
            }
        }
        peers
    }

    /// Starts the daemon and sees that it runs a container.
    fn start_daemon(candidate: &Candidate, bench: &Bench) -> Result<Self> {
        for program in candidate.programs {
            ensure!(is_installed(program), "{program} is not installed");
        }
        let daemon = (candidate.start)()?;
        let peer = Self { name: candidate.name, daemon, tool: candidate.tool };
        peer.pull(&bench.image)?;
        peer.run(&bench.image, "first", &["true"])?;
        Ok(peer)
    }

    /// The heading of its column.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// A foreground `run --rm` of `command`, by the engine's own client.
    pub(crate) fn run(&self, image: &str, id: &str, command: &[&str]) -> Result<()> {
        self.command(self.tool, &self.tool.run(image, id, command))
    }

    /// Starts a container that goes on, named `id`.
    pub(crate) fn start(&self, image: &str, id: &str) -> Result<()> {
        self.command(self.tool, &self.tool.start(image, id))
    }

    /// Runs `true` in a container that was started.
    pub(crate) fn exec(&self, id: &str, exec_id: &str) -> Result<()> {
        self.command(self.tool, &self.tool.exec(id, exec_id))
    }

    /// Ends and removes a container.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        self.tool.remove(id).iter().try_for_each(|words| self.command(self.tool, words))
    }

    /// Lists what runs.
    pub(crate) fn list(&self) -> Result<()> {
        self.command(self.tool, &self.tool.list())
    }

    /// Fetches and unpacks an image.
    pub(crate) fn pull(&self, image: &str) -> Result<()> {
        self.command(self.tool, &self.tool.pull(image))
    }

    /// Removes an image and gives its space back.
    pub(crate) fn remove_image(&self, image: &str) -> Result<()> {
        self.command(self.tool, &self.tool.remove_image(image))
    }

    /// The daemon if `ctr` can drive it: it serves containerd's API, and `ctr` is installed.
    pub(crate) fn for_ctr(&self) -> Option<&Engine> {
        match &self.daemon {
            Daemon::Containerd(engine) => Some(engine).filter(|_| is_installed("ctr")),
            Daemon::Docker(_) => None,
        }
    }

    /// The daemon if its containers outlive it, to stop and start it.
    pub(crate) fn restartable(&mut self) -> Option<&mut Engine> {
        match &mut self.daemon {
            Daemon::Containerd(engine) => Some(engine),
            Daemon::Docker(_) => None,
        }
    }

    /// The process ids of the daemon, two where it has one of its own below.
    pub(crate) fn daemon_pids(&self) -> Vec<u32> {
        match &self.daemon {
            Daemon::Containerd(engine) => vec![engine.daemon_pid()],
            Daemon::Docker(docker) => docker.pids(),
        }
    }

    /// The process ids of the shims.
    pub(crate) fn shim_pids(&self) -> Vec<u32> {
        let namespace = match &self.daemon {
            Daemon::Containerd(engine) => engine.namespace(),
            Daemon::Docker(_) => "moby",
        };
        berth_tests::leaks::shims(namespace).into_iter().map(|pid| pid as u32).collect()
    }

    fn command(&self, tool: Tool, words: &[&str]) -> Result<()> {
        let finished = match (&self.daemon, tool) {
            (Daemon::Docker(docker), _) => docker.run(words),
            (Daemon::Containerd(engine), Tool::Ctr) => engine.ctr(words),
            (Daemon::Containerd(engine), _) => engine.cli(words),
        };
        // `ctr tasks rm -f` answers with the killed task's own status.
        let killed = words.starts_with(&["tasks", "rm"]) && finished.code == 137;
        ensure!(finished.code == 0 || killed, "{}: {}", finished.command, finished.stderr.trim());
        Ok(())
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|directory: PathBuf| directory.join(program));
    places.any(|place| place.is_file())
}
