//! A bundle with a root filesystem of busybox, and the ways to run it.

use std::fs::{self, File};
use std::future::Future;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use berth_sys::pidfd;
use berth_types::Result;
use berth_types::spec::{self, Mount, Spec};
use containerd_shim_berth_v1::container::{Container, CreateRequest, Io, Process, Stdio};
use rustix::fs::MemfdFlags;
use rustix::process::{WaitId, WaitIdOptions};
use tempfile::TempDir;

const APPLETS: &[&str] = &[
    "cat", "chmod", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ls",
    "mkdir", "mount", "ps", "pwd", "readlink", "sh", "sleep", "stat", "stty", "test", "touch",
    "true", "tty", "umount", "uname", "unshare", "wc",
];

/// What the names of everything made here begin with.
pub(crate) fn prefix() -> String {
    format!("berth-rig-{}-", std::process::id())
}

/// A bundle.
pub(crate) struct Rig {
    directory: TempDir,
    pub(crate) spec: Spec,
    /// What is mounted as the root; by default the root is there already.
    pub(crate) rootfs: Vec<Mount>,
}

/// What a process did.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// The lines of standard output of a process that succeeded.
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.status, Some(0), "{self:?}");
        self.stdout.trim_end()
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix(&prefix()).tempdir().unwrap();
        let name = directory.path().file_name().unwrap().to_str().unwrap();
        let mut spec = Spec::container(&format!("/{name}"));
        spec.process.as_mut().unwrap().env = vec!["PATH=/bin".to_owned()];
        let rig = Self { directory, spec, rootfs: Vec::new() };
        for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
            fs::create_dir_all(rig.root().join(directory)).unwrap();
        }
        fs::copy("/bin/busybox", rig.root().join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", rig.root().join("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/srv/app:/bin/sh\n";
        fs::write(rig.root().join("etc/passwd"), passwd).unwrap();
        fs::write(rig.root().join("etc/group"), "root:x:0:\napp:x:1000:\nweb:x:2000:app\n")
            .unwrap();
        rig
    }

    /// The bundle.
    pub(crate) fn bundle(&self) -> &Path {
        self.directory.path()
    }

    /// The root filesystem on the host.
    pub(crate) fn root(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    pub(crate) fn process(&mut self) -> &mut spec::Process {
        self.spec.process.as_mut().unwrap()
    }

    pub(crate) fn linux(&mut self) -> &mut spec::Linux {
        self.spec.linux.as_mut().unwrap()
    }

    pub(crate) fn bind(&mut self, source: &Path, destination: &str, options: &[&str]) {
        self.spec.mounts.push(Mount {
            destination: destination.into(),
            kind: Some("bind".into()),
            source: Some(source.to_str().unwrap().into()),
            options: options.iter().map(|option| (*option).into()).collect(),
            ..Mount::default()
        });
    }

    pub(crate) fn request(&self, io: Io) -> CreateRequest {
        CreateRequest {
            id: self.bundle().file_name().unwrap().to_str().unwrap().to_owned(),
            bundle: self.bundle().to_owned(),
            rootfs: self.rootfs.clone(),
            spec: self.spec.clone(),
            io,
            no_new_keyring: false,
            no_pivot: false,
            preserved_fds: 0,
            gate: None,
        }
    }

    /// Creates the container with `args` as its command.
    pub(crate) async fn create(&mut self, args: &[&str], streams: &Streams) -> Result<Container> {
        self.process().args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Container::create(self.request(streams.io())).await
    }

    /// Runs `args` to its end and destroys the container.
    pub(crate) fn run(&mut self, args: &[&str]) -> Output {
        self.try_run(args).unwrap()
    }

    pub(crate) fn try_run(&mut self, args: &[&str]) -> Result<Output> {
        block_on(async {
            let streams = Streams::new();
            let mut container = self.create(args, &streams).await?;
            let started = container.start().await;
            let status = wait(container.init());
            container.destroy().await.unwrap();
            started.map(|()| streams.output(status))
        })
    }

    /// Runs a line of shell.
    pub(crate) fn sh(&mut self, line: &str) -> Output {
        self.run(&["sh", "-c", line])
    }

    /// Starts a container that sleeps, gives it to `visit`, and destroys it.
    pub(crate) fn with_sleeper<T>(&mut self, visit: impl AsyncFnOnce(&Container) -> T) -> T {
        block_on(async {
            let mut container = self.create(&["sleep", "1000"], &Streams::new()).await.unwrap();
            container.start().await.unwrap();
            let result = visit(&container).await;
            end(&container);
            container.destroy().await.unwrap();
            result
        })
    }
}

/// Kills the first process, which ends once its children in the pidns were waited for too.
pub(crate) fn kill(container: &Container) {
    let _ = pidfd::send_signal(container.init().pidfd.as_fd(), 9);
}

/// Kills the first process and waits for it.
pub(crate) fn end(container: &Container) {
    kill(container);
    wait(container.init());
}

/// Files that take what a process prints.
pub(crate) struct Streams {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Streams {
    pub(crate) fn new() -> Self {
        let file = || rustix::fs::memfd_create("stream", MemfdFlags::CLOEXEC).unwrap();
        Self { stdout: file(), stderr: file() }
    }

    pub(crate) fn io(&self) -> Io {
        let stdin = File::open("/dev/null").unwrap().into();
        let copy = |fd: &OwnedFd| fd.try_clone().unwrap();
        Io::Pipes(Stdio { stdin, stdout: copy(&self.stdout), stderr: copy(&self.stderr) })
    }

    pub(crate) fn output(&self, status: Option<i32>) -> Output {
        Output { status, stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

fn text(fd: &OwnedFd) -> String {
    let mut file = File::from(fd.try_clone().unwrap());
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// Waits for `process`, as a shim's reaper does: its status, or 128 and its signal.
pub(crate) fn wait(process: &Process) -> Option<i32> {
    let status = pidfd::wait(process.pidfd.as_fd()).unwrap()?;
    status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal))
}

/// Runs `future` on a runtime of one thread, as in the shim.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// No child, mount, control group or directory of this process's containers is there.
pub(crate) fn assert_nothing_left() {
    /// `__WALL` of `waitid(2)`: children of every kind.
    const ALL: WaitIdOptions = WaitIdOptions::from_bits_retain(0x4000_0000);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | ALL;
    let children = rustix::process::waitid(WaitId::All, options);
    assert_eq!(children.err(), Some(rustix::io::Errno::CHILD), "a child is left");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&prefix()), "a mount is left: {mounts}");
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let Ok(groups) = fs::read_dir(hierarchy.unwrap().path()) else { continue };
        for group in groups {
            let name = group.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with(&prefix()), "the cgroup {name} is left");
        }
    }
}
