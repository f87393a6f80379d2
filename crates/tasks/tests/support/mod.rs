//! Tasks in a scratch directory, with a root file system of busybox.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that can't go on fails.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_events::{Envelope, Exchange, Subscription};
use berth_proto::containerd::types::Mount;
use berth_tasks::{Config, Create, Tasks};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::UnixListener;

/// Debian's shim of containerd 1.6 with runc.
pub(crate) const RUNC_SHIM: &str = "/usr/bin/containerd-shim-runc-v2";

/// Far longer than anything here takes: a test that waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A daemon's worth of tasks. Its directories outlive the daemons that tests make on them.
pub(crate) struct House {
    pub(crate) directory: TempDir,
    /// So that parallel tests don't share control groups.
    namespace: String,
}

impl House {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("bt").tempdir().unwrap();
        let name = directory.path().file_name().unwrap().to_string_lossy().replace('.', "");
        make_rootfs(&directory.path().join("rootfs"));
        Self { directory, namespace: format!("test-{name}") }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn config(&self) -> Config {
        let path = self.directory.path();
        Config {
            state: path.join("state"),
            address: path.join("sock"),
            shim: berth_tasks::find_own_shim().unwrap_or_else(|| PathBuf::from("/nonexistent")),
            runtimes: Default::default(),
        }
    }

    /// A container that runs `script` in a shell.
    pub(crate) fn container(&self, id: &str, script: &str) -> Create {
        Create {
            namespace: self.namespace.clone(),
            id: id.to_owned(),
            runtime: RUNC_SHIM.to_owned(),
            spec: spec(&self.namespace, id, &["/bin/sh", "-c", script]),
            rootfs: vec![Mount {
                r#type: "bind".into(),
                source: self.directory.path().join("rootfs").to_string_lossy().into_owned(),
                target: String::new(),
                options: vec!["rbind".into(), "ro".into()],
            }],
            ..Create::default()
        }
    }

    /// As the daemon does at its start.
    pub(crate) async fn daemon(&self) -> Daemon {
        let config = self.config();
        fs::create_dir_all(&config.state).unwrap();
        let events = Exchange::new();
        let subscription = events.subscribe(&[]).unwrap();
        let tasks = Tasks::new(config.clone(), events).unwrap();
        let _ = fs::remove_file(config.ttrpc_address());
        let listener = UnixListener::bind(config.ttrpc_address()).unwrap();
        let serving = tasks.clone();
        let server = tokio::spawn(async move { serving.serve_events(&listener).await });
        tasks.recover().await.unwrap();
        Daemon { tasks, events: subscription, server: server.abort_handle() }
    }

    /// Fails when anything is left of the tasks there were.
    pub(crate) fn assert_empty(&self) {
        let state = self.config().state;
        let left: Vec<_> = walk(&state).collect();
        assert!(left.is_empty(), "left in the state directory: {left:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let path = self.directory.path().to_string_lossy();
        assert!(!mounts.contains(&*path), "mounts are left:\n{mounts}");
    }
}

impl Drop for House {
    /// runc leaves the parent of its containers' control groups, because others may come.
    fn drop(&mut self) {
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.namespace));
        }
    }
}

/// The files below `path`.
fn walk(path: &Path) -> Box<dyn Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    Box::new(entries.flat_map(|entry| {
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path())
        } else {
            Box::new(std::iter::once(entry.path()))
        }
    }))
}

pub(crate) struct Daemon {
    pub(crate) tasks: Tasks,
    events: Subscription,
    server: tokio::task::AbortHandle,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Daemon {
    /// The next event on `topic`; others are passed over.
    pub(crate) async fn event(&mut self, topic: &str) -> Envelope {
        let search = async {
            loop {
                let envelope = self.events.next().await.unwrap();
                if envelope.topic == topic {
                    return Envelope::clone(&envelope);
                }
            }
        };
        tokio::time::timeout(LONG, search).await.expect("the event came")
    }
}

fn make_rootfs(path: &Path) {
    for directory in ["bin", "proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(path.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", path.join("bin/busybox")).unwrap();
    fs::set_permissions(path.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    for applet in ["sh", "sleep", "true", "echo", "cat"] {
        symlink("busybox", path.join("bin").join(applet)).unwrap();
    }
}

fn spec(namespace: &str, id: &str, args: &[&str]) -> Vec<u8> {
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "root": {"path": "rootfs"},
        "hostname": "test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {
            "cgroupsPath": format!("/{namespace}/{id}"),
            "namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"},
                {"type": "network"},
            ],
        },
    });
    serde_json::to_vec(&spec).unwrap()
}

/// A process's parent, from procfs.
pub(crate) fn parent_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("PPid:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Whether a process runs: one that has ended may await its reaper still.
pub(crate) fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}
