//! A bundle with a root filesystem of busybox, and a runtime to run it with.

use std::ffi::OsStr;
use std::fs;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use berth_tests::{Finished, built, wait_until};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use tempfile::TempDir;

const APPLETS: &[&str] = &[
    "awk", "cat", "chmod", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "id",
    "kill", "ls", "mkdir", "mknod", "mount", "nice", "ps", "pwd", "readlink", "sh", "sleep", "rm",
    "sort", "stat", "stty", "test", "touch", "tr", "true", "tty", "umount", "uname", "wc",
];

/// Where hierarchies of control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// A runtime's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    Berth,
    Runc,
}

impl Runtime {
    fn program(self) -> PathBuf {
        match self {
            Self::Berth => built("berth-oci"),
            Self::Runc => PathBuf::from("runc"),
        }
    }
}

/// Runs `test` with each runtime.
pub(crate) fn on_both(test: impl Fn(&mut Rig)) {
    for runtime in [Runtime::Berth, Runtime::Runc] {
        on(runtime, &test);
    }
}

/// As [`on_both`], where runc can do it since `version` only.
pub(crate) fn on_both_since(version: (u32, u32), test: impl Fn(&mut Rig)) {
    on(Runtime::Berth, &test);
    match runc_version() {
        installed if installed >= version => on(Runtime::Runc, &test),
        installed => skip(&format!("runc {installed:?} is older than {version:?}")),
    }
}

/// Runs `test` with our runtime only; `reason` says how the reference differs.
pub(crate) fn on_ours(reason: &str, test: impl Fn(&mut Rig)) {
    on(Runtime::Berth, &test);
    skip(&format!("runc: {reason}"));
}

fn on(runtime: Runtime, test: impl Fn(&mut Rig)) {
    let mut rig = Rig::new(runtime);
    test(&mut rig);
    rig.assert_nothing_left();
}

/// How often something is done: `usual` times, unless the environment has a number called `name`,
/// as for longer runs.
pub(crate) fn rounds(name: &str, usual: u32) -> u32 {
    std::env::var(name).map_or(usual, |number| number.parse().unwrap())
}

/// Says that something was not tested, past the harness, which swallows what tests print.
pub(crate) fn skip(why: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "skipped in {name}: {why}");
}

/// Whether the machine has `path`; if not, says that the test is skipped.
pub(crate) fn machine_has(path: &str) -> bool {
    let has = Path::new(path).exists();
    if !has {
        skip(&format!("both: this machine has no {path}"));
    }
    has
}

fn runc_version() -> (u32, u32) {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let output = Finished::run("runc", &["--version"], b"").success();
        let version = output.stdout.split_whitespace().nth(2).unwrap();
        let mut numbers = version.split('.').map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    })
}

/// A bundle, and the runtime that runs it.
pub(crate) struct Rig {
    pub(crate) runtime: Runtime,
    directory: TempDir,
    /// The id of the container, and the name of its control group.
    pub(crate) id: String,
    /// What becomes `config.json`.
    pub(crate) spec: Value,
}

impl Rig {
    pub(crate) fn new(runtime: Runtime) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::Builder::new().prefix("berth-oci-").tempdir().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("oci-test-{}-{number}", std::process::id());
        let rig = Self { runtime, directory, spec: spec(&id), id };
        for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
            fs::create_dir_all(rig.root().join(directory)).unwrap();
        }
        fs::copy("/bin/busybox", rig.root().join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", rig.root().join("bin").join(applet)).unwrap();
        }
        rig
    }

    /// The directory of the bundle, with room for other things.
    pub(crate) fn bundle(&self) -> &Path {
        self.directory.path()
    }

    /// The root filesystem on the host.
    pub(crate) fn root(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// The file of the runtime's program.
    pub(crate) fn program(&self) -> PathBuf {
        match self.runtime {
            Runtime::Berth => self.runtime.program(),
            Runtime::Runc => PathBuf::from("/usr/sbin/runc"),
        }
    }

    /// The runtime's command line up to its command.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.runtime.program());
        command.arg("--root").arg(self.bundle().join("state")).current_dir(self.bundle());
        command
    }

    /// Runs a command of the runtime to its end.
    pub(crate) fn call<A: AsRef<OsStr>>(&self, args: &[A]) -> Finished {
        Finished::leaving(self.command().args(args))
    }

    /// As [`Rig::call`], with the container's id as the last argument.
    pub(crate) fn verb(&self, verb: &[&str]) -> Finished {
        self.call(&[verb, &[&self.id]].concat())
    }

    pub(crate) fn write_spec(&self) {
        let text = serde_json::to_vec(&self.spec).unwrap();
        fs::write(self.bundle().join("config.json"), text).unwrap();
    }

    /// Runs `args` in a container of its own.
    pub(crate) fn run(&mut self, args: &[&str]) -> Finished {
        self.spec["process"]["args"] = json!(args);
        self.write_spec();
        self.verb(&["run"])
    }

    /// Runs a line of shell, and returns what it prints.
    #[track_caller]
    pub(crate) fn sh(&mut self, line: &str) -> String {
        self.run(&["sh", "-c", line]).success().line().to_owned()
    }

    /// Creates the container without starting it.
    pub(crate) fn create(&mut self, args: &[&str]) -> Finished {
        self.spec["process"]["args"] = json!(args);
        self.write_spec();
        self.verb(&["create"])
    }

    /// Starts a container that sleeps, gives it to `visit`, and deletes it.
    #[track_caller]
    pub(crate) fn with_sleeper(&mut self, visit: impl FnOnce(&Self)) {
        self.create(&["sleep", "1000"]).success();
        self.verb(&["start"]).success();
        visit(self);
        self.verb(&["delete", "-f"]).success();
    }

    /// What `state` prints.
    #[track_caller]
    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.verb(&["state"]).success().stdout).unwrap()
    }

    /// Waits until the container has ended by itself.
    pub(crate) fn wait_for_end(&self) {
        wait_until("the container's end", || self.state()["status"] == "stopped");
    }

    /// Runs a line of shell in the running container, and returns what it prints.
    #[track_caller]
    pub(crate) fn exec(&self, line: &str) -> String {
        self.call(&["exec", &self.id, "sh", "-c", line]).success().line().to_owned()
    }

    /// A value of the container's control group.
    #[track_caller]
    pub(crate) fn cgroup(&self, controller: &str, file: &str) -> String {
        let path = Path::new(CGROUPS).join(controller).join(&self.id).join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")).trim().into()
    }

    pub(crate) fn add_mount(&mut self, mount: Value) {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    pub(crate) fn bind(&mut self, source: &Path, destination: &str, options: &[&str]) {
        self.add_mount(json!({
            "destination": destination, "type": "bind", "source": source, "options": options,
        }));
    }

    /// Takes `kind` out of the container's namespaces, or gives it a path.
    pub(crate) fn namespace(&mut self, kind: &str, path: Option<&str>) {
        let list = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != kind);
        if let Some(path) = path {
            list.push(json!({ "type": kind, "path": path }));
        }
    }

    /// No container, process, mount or control group is left.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let records = fs::read_dir(self.bundle().join("state")).into_iter().flatten();
        assert_eq!(records.count(), 0, "a container is left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.bundle().to_str().unwrap()), "a mount is left: {mounts}");
        for hierarchy in fs::read_dir(CGROUPS).unwrap() {
            let group = hierarchy.unwrap().path().join(&self.id);
            assert!(!group.exists(), "the cgroup {group:?} is left");
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // After a failure only: else there is nothing to delete.
        self.verb(&["delete", "-f"]);
    }
}

/// The message that comes through `socket`, with its descriptor.
pub(crate) fn receive(socket: &UnixStream) -> (Vec<u8>, OwnedFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 65_536];
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    let descriptor = descriptors.next().unwrap();
    bytes.truncate(received.bytes);
    (bytes, descriptor)
}

/// What the tests depart from.
fn spec(id: &str) -> Value {
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SYS_CHROOT"
    ]);
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": { "path": "rootfs" },
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces.map(|kind| json!({ "type": kind })),
        },
    })
}
