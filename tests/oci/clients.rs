//! Clients that drive runtimes: containerd's shim for runc, and Docker's daemon.

use std::path::Path;
use std::process::Command;

use berth_tests::{Engine, Finished, Flavor, Image, Running, built, wait_until};
use nix::sys::signal::Signal;

use crate::rig::skip;

const IMAGE: &str = "docker.io/library/busybox:latest";

/// containerd's shim for runc runs containers with `berth-oci` in its place.
#[test]
fn containerds_shim_drives_us() {
    let engine = Engine::start_flavor(Flavor::Containerd);
    engine.import(&Image::busybox(IMAGE));
    let binary = built("berth-oci");
    let run = |flags: &[&str], rest: &[&str]| {
        let runtime = ["--runtime", "io.containerd.runc.v2", "--runc-binary"];
        let binary = [binary.to_str().unwrap()];
        engine.ctr(&[&["run"], &runtime[..], &binary, flags, &[IMAGE], rest].concat())
    };
    let ran = run(&["--rm"], &["one", "sh", "-c", "echo out; echo err >&2; exit 7"]).exited(7);
    assert_eq!((ran.line(), ran.stderr.trim_end()), ("out", "err"));
    let missing = run(&["--rm"], &["one", "nothing-like-it"]);
    assert_ne!(missing.code, 0);
    missing.complains("executable file not found in $PATH");

    run(&["-d"], &["two", "sleep", "1000"]).success();
    let listed = |status: &str| {
        let list = engine.ctr(&["tasks", "ls"]).success().stdout;
        list.lines().any(|row| row.starts_with("two ") && row.contains(status))
    };
    assert!(listed("RUNNING"));
    let exec = engine.ctr(&["tasks", "exec", "--exec-id", "e", "two", "sh", "-c", "id -u; exit 3"]);
    assert_eq!(exec.exited(3).line(), "0");
    engine.ctr(&["tasks", "pause", "two"]).success();
    assert!(listed("PAUSED"));
    engine.ctr(&["tasks", "resume", "two"]).success();
    let processes = engine.ctr(&["tasks", "ps", "two"]).success().stdout;
    assert_eq!(processes.lines().count(), 2, "{processes}");
    engine.ctr(&["tasks", "kill", "-s", "KILL", "two"]).success();
    wait_until("the end of the task", || listed("STOPPED"));
    engine.ctr(&["tasks", "kill", "two"]).exited(1).complains("already finished");
    engine.ctr(&["tasks", "rm", "two"]).success().complains("137");
    engine.ctr(&["containers", "rm", "two"]).success();
}

/// A daemon of Docker's without a network, on scratch directories.
struct Docker {
    daemon: Running,
    directory: tempfile::TempDir,
}

impl Docker {
    /// `None`, and a line that says so, where Docker can't be started.
    fn start() -> Option<Self> {
        if !["/usr/sbin/dockerd", "/usr/bin/dockerd"].iter().any(|path| Path::new(path).exists()) {
            skip("this machine has no dockerd");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("bt").tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("config"), "{}").unwrap();
        // Its rules for the network would be the host's.
        let mut command = Command::new("unshare");
        command.args(["--net", "dockerd", "--bridge=none", "--iptables=false"]);
        command.args(["--ip6tables=false", "--ip-forward=false", "--config-file", &path("config")]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec")]);
        command.args(["--pidfile", &path("pid"), "-H", &format!("unix://{}", path("sock"))]);
        command.arg("--add-runtime").arg(format!("berth={}", built("berth-oci").display()));
        let daemon = Running::start(&mut command, &directory.path().join("log"));
        let mut docker = Self { daemon, directory };
        wait_until("Docker's daemon", || {
            docker.daemon.has_ended() || docker.call(&["version"]).code == 0
        });
        if docker.daemon.has_ended() {
            let log = std::fs::read_to_string(docker.directory.path().join("log")).unwrap();
            skip(&format!(
                "dockerd doesn't start here: {}",
                log.lines().last().unwrap_or_default()
            ));
            return None;
        }
        Some(docker)
    }

    fn call(&self, args: &[&str]) -> Finished {
        let socket = format!("unix://{}", self.directory.path().join("sock").display());
        Finished::run("docker", &[&["-H", &socket], args].concat(), b"")
    }

    fn run(&self, flags: &[&str], rest: &[&str]) -> Finished {
        let runtime = ["run", "--runtime", "berth", "--network", "none"];
        self.call(&[&runtime[..], flags, &["busybox:test"], rest].concat())
    }

    /// Makes an image of busybox.
    fn import(&self) {
        let root = self.directory.path().join("rootfs");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "id", "sleep", "true", "tty"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let archive = self.directory.path().join("rootfs.tar");
        let (archive, root) = (archive.to_str().unwrap(), root.to_str().unwrap());
        Finished::run("tar", &["-C", root, "-cf", archive, "."], b"").success();
        self.call(&["import", archive, "busybox:test"]).success();
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.daemon.stop(Signal::SIGTERM);
    }
}

/// Docker's daemon runs containers with `--runtime`.
#[test]
fn docker_drives_us() {
    let Some(docker) = Docker::start() else { return };
    docker.import();
    let ran = docker.run(&["--rm"], &["sh", "-c", "echo out; exit 7"]).exited(7);
    assert_eq!(ran.line(), "out");
    docker.run(&["--rm"], &["nothing-like-it"]).exited(127);
    docker.run(&["--rm"], &["/bin"]).exited(126);
    let limited = ["--rm", "--user", "1000", "--read-only", "--cap-drop", "ALL", "--init"];
    assert_eq!(docker.run(&limited, &["id", "-u"]).success().line(), "1000");
    docker.run(&["--rm", "--privileged"], &["true"]).success();

    docker.run(&["-d", "--name", "one"], &["sleep", "1000"]).success();
    assert_eq!(docker.call(&["exec", "one", "id", "-u"]).success().line(), "0");
    docker.call(&["exec", "one", "sh", "-c", "exit 3"]).exited(3);
    assert_eq!(docker.call(&["exec", "-t", "one", "tty"]).success().line().trim(), "/dev/pts/0");
    let status = || docker.call(&["inspect", "-f", "{{.State.Status}}", "one"]).success().stdout;
    docker.call(&["pause", "one"]).success();
    assert_eq!(status(), "paused\n");
    docker.call(&["unpause", "one"]).success();
    docker.call(&["update", "--memory", "64m", "--memory-swap", "64m", "one"]).success();
    assert!(docker.call(&["top", "one"]).success().stdout.contains("sleep 1000"));
    docker.call(&["restart", "-t", "0", "one"]).success();
    assert_eq!(status(), "running\n");
    docker.call(&["stop", "-t", "0", "one"]).success();
    assert_eq!(status(), "exited\n");
    docker.call(&["rm", "one"]).success();
    assert_eq!(docker.call(&["ps", "-aq"]).success().stdout, "");
}
