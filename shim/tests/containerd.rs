//! The shim under Debian's own containerd, driven by `ctr`. Needs root and the package
//! `containerd`.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use berth_types::Digest;
use tempfile::TempDir;

const IMAGE: &str = "docker.io/library/busybox:test";

/// How long anything may take before it counts as hanging.
const HANGS: Duration = Duration::from_secs(30);

/// A containerd of its own, with an image, that finds our shim.
struct Containerd {
    directory: TempDir,
    daemon: Child,
}

impl Containerd {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("berth-containerd-").tempdir().unwrap();
        let path = directory.path();
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{0}/sock\"\n",
            path.display()
        );
        fs::write(path.join("config.toml"), config).unwrap();
        let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-berth-v1")).parent().unwrap();
        let search = format!("{}:{}", shim.display(), std::env::var("PATH").unwrap());
        let log = fs::File::create(path.join("containerd.log")).unwrap();
        let daemon = Command::new("containerd")
            .arg("--config")
            .arg(path.join("config.toml"))
            .env("PATH", search)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Self { directory, daemon };
        until("containerd does not answer", || containerd.try_ctr(&["version"]).status.success());
        containerd.import();
        containerd
    }

    fn import(&self) {
        let archive = self.directory.path().join("image.tar");
        make_image(&self.directory.path().join("image"), &archive);
        self.ctr(&["image", "import", archive.to_str().unwrap()]);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.directory.path().join("sock")).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn try_ctr(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs `ctr`, which must succeed, and returns what it printed.
    fn ctr(&self, arguments: &[&str]) -> String {
        let output = self.try_ctr(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a container to its end: its status and both outputs.
    fn run(&self, id: &str, args: &[&str]) -> (Option<i32>, String, String) {
        let run = ["run", "--rm", "--runtime", "io.containerd.berth.v1", IMAGE, id];
        let output = self.try_ctr(&[&run, args].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn detach(&self, id: &str, args: &[&str]) {
        let run = ["run", "-d", "--runtime", "io.containerd.berth.v1", IMAGE, id];
        self.ctr(&[&run, args].concat());
    }

    /// The status that `ctr tasks ls` shows.
    fn status(&self, id: &str) -> Option<String> {
        let list = self.ctr(&["tasks", "ls"]);
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    }

    /// Checks that no shim, bundle or socket is left.
    fn assert_nothing_left(&self) {
        let state = self.directory.path().join("state");
        let empty =
            |path: PathBuf| fs::read_dir(path).map_or(true, |mut list| list.next().is_none());
        until("bundles are left", || empty(state.join("io.containerd.runtime.v2.task/default")));
        until("sockets are left", || empty(self.directory.path().join("s")));
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + HANGS;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Makes a Docker archive with a layer of busybox.
fn make_image(directory: &Path, archive: &Path) {
    let root = directory.join("root");
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in ["cat", "echo", "kill", "ps", "seq", "sh", "sleep", "true"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    tar(&root, &directory.join("layer.tar"), &["."]);
    let layer = Digest::of(&fs::read(directory.join("layer.tar")).unwrap());
    let config = format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{\"Env\":[\"PATH=/bin\"]}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{}\"]}}}}",
        layer.as_str()
    );
    fs::write(directory.join("config.json"), config).unwrap();
    let manifest = format!(
        "[{{\"Config\":\"config.json\",\"RepoTags\":[\"{IMAGE}\"],\"Layers\":[\"layer.tar\"]}}]"
    );
    fs::write(directory.join("manifest.json"), manifest).unwrap();
    tar(directory, archive, &["manifest.json", "config.json", "layer.tar"]);
}

fn tar(directory: &Path, archive: &Path, members: &[&str]) {
    let mut command = Command::new("tar");
    let status = command.arg("-C").arg(directory).arg("-cf").arg(archive).args(members).status();
    assert!(status.unwrap().success());
}

#[test]
fn containers_run_to_their_end() {
    let containerd = Containerd::start();
    let line = "echo out; echo error >&2; exit 7";
    let (status, stdout, stderr) = containerd.run("one", &["sh", "-c", line]);
    assert_eq!((status, &*stdout, &*stderr), (Some(7), "out\n", "error\n"));

    let expected: String = (1..=50_000).map(|number| format!("{number}\n")).collect();
    let (status, stdout, _) = containerd.run("two", &["seq", "1", "50000"]);
    assert!(status == Some(0) && stdout == expected, "{status:?}, {} bytes", stdout.len());

    let (_, _, stderr) = containerd.run("three", &["nosuch"]);
    assert!(stderr.contains("executable file not found"), "{stderr}");
    containerd.assert_nothing_left();
}

#[test]
fn a_detached_container_is_driven_by_ctr() {
    let containerd = Containerd::start();
    containerd.detach("driven", &["sleep", "1000"]);
    assert_eq!(containerd.status("driven").as_deref(), Some("RUNNING"));

    let exec = ["tasks", "exec", "--exec-id", "x", "driven", "sh", "-c", "echo exec; exit 3"];
    let output = containerd.try_ctr(&exec);
    assert_eq!((output.status.code(), &*output.stdout), (Some(3), &b"exec\n"[..]));

    assert_eq!(containerd.ctr(&["tasks", "ps", "driven"]).lines().count(), 2);
    assert!(containerd.ctr(&["tasks", "metrics", "driven"]).contains("memory.usage_in_bytes"));
    containerd.ctr(&["tasks", "pause", "driven"]);
    assert_eq!(containerd.status("driven").as_deref(), Some("PAUSED"));
    containerd.ctr(&["tasks", "resume", "driven"]);
    assert_eq!(containerd.status("driven").as_deref(), Some("RUNNING"));

    assert!(!containerd.try_ctr(&["tasks", "rm", "driven"]).status.success());
    containerd.ctr(&["tasks", "kill", "-s", "KILL", "driven"]);
    until("it was not killed", || containerd.status("driven").as_deref() == Some("STOPPED"));
    containerd.ctr(&["tasks", "rm", "driven"]);
    containerd.ctr(&["containers", "rm", "driven"]);
    containerd.assert_nothing_left();
}

#[test]
fn events_are_heard_in_their_order() {
    let containerd = Containerd::start();
    let log = containerd.directory.path().join("events");
    let mut listener =
        containerd.command(&["events"]).stdout(fs::File::create(&log).unwrap()).spawn().unwrap();
    let heard = |topic: &str| fs::read_to_string(&log).unwrap().contains(topic);
    until("events are not heard", || {
        containerd.ctr(&["namespaces", "label", "default", "probe=1"]);
        heard("/namespaces/update")
    });
    containerd.run("heard", &["true"]);
    until("the last event is not heard", || heard("/tasks/delete"));
    listener.kill().unwrap();
    listener.wait().unwrap();
    let text = fs::read_to_string(&log).unwrap();
    let topics: Vec<_> =
        text.split_whitespace().filter(|word| word.starts_with("/tasks/")).collect();
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
}

#[test]
fn a_killed_shim_is_cleaned_up_after() {
    let containerd = Containerd::start();
    containerd.detach("killed", &["sleep", "1000"]);
    let bundle =
        containerd.directory.path().join("state/io.containerd.runtime.v2.task/default/killed");
    let pid = find_shim(&bundle);
    let signal = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    assert!(signal.unwrap().success());
    until("its task is left", || containerd.status("killed").is_none());
    containerd.ctr(&["containers", "rm", "killed"]);
    containerd.assert_nothing_left();
}

#[test]
fn the_containers_of_a_group_share_a_shim() {
    let containerd = Containerd::start();
    for id in ["first", "second", "third"] {
        let annotation = "io.kubernetes.cri.sandbox-id=first";
        let run = ["run", "-d", "--runtime", "io.containerd.berth.v1", "--annotation", annotation];
        containerd.ctr(&[&run[..], &[IMAGE, id, "sleep", "1000"]].concat());
    }
    let bundles = containerd.directory.path().join("state/io.containerd.runtime.v2.task/default");
    let address = |id: &str| fs::read_to_string(bundles.join(id).join("address")).unwrap();
    assert_eq!(address("first"), address("second"));
    assert_eq!(address("first"), address("third"));
    let kill = |id: &str| {
        containerd.ctr(&["tasks", "kill", "-s", "KILL", id]);
        until("it was not killed", || containerd.status(id).as_deref() == Some("STOPPED"));
        containerd.ctr(&["tasks", "rm", id]);
        containerd.ctr(&["containers", "rm", id]);
    };
    // The shim stays for the others, whose it was not started for.
    kill("first");
    let exec = ["tasks", "exec", "--exec-id", "x", "second", "echo", "on"];
    assert_eq!(containerd.ctr(&exec), "on\n");
    kill("second");
    assert_eq!(containerd.status("third").as_deref(), Some("RUNNING"));
    kill("third");
    containerd.assert_nothing_left();
}

/// The shim whose working directory is `bundle`.
fn find_shim(bundle: &Path) -> u32 {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    let mut shims = processes.filter(|pid| {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.ends_with("containerd-shim-berth-v1")
            && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == bundle)
    });
    shims.next().unwrap()
}
