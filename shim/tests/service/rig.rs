//! A shim with a bundle, a client of its socket, and a daemon that collects its events.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use berth_proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use berth_proto::containerd::task::v3 as api;
use berth_proto::containerd::types::{Envelope, Mount};
use berth_proto::containerd::v1::types::Status;
use berth_ttrpc::{Client, Handler, Options, Request, Server};
use berth_types::Result;
use berth_types::spec::{self, Spec};
use prost::Message;
use prost_types::Any;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-berth-v1");
pub(crate) const TASK: &str = "containerd.task.v2.Task";

/// How long anything may take before it counts as hanging.
pub(crate) const HANGS: Duration = Duration::from_secs(30);

const APPLETS: &[&str] = &[
    "cat", "dd", "echo", "false", "head", "kill", "ls", "ps", "seq", "sh", "sleep", "stty", "tail",
    "test", "true", "tty", "wc", "yes",
];

/// The daemon's side of the events.
struct Daemon(mpsc::UnboundedSender<Envelope>);

impl Handler for Daemon {
    async fn call(&self, request: Request) -> Result<Vec<u8>> {
        assert_eq!(request.service, "containerd.services.events.ttrpc.v1.Events");
        assert_eq!(request.method, "Forward");
        let ForwardRequest { envelope } = request.decode()?;
        self.0.send(envelope.unwrap()).unwrap();
        Ok(Vec::new())
    }
}

/// The names of a process's streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running shim.
pub(crate) struct Rig {
    directory: TempDir,
    pub(crate) id: String,
    pub(crate) spec: Spec,
    /// What is mounted as the root; by default the root is there already.
    pub(crate) rootfs: Vec<Mount>,
    /// The runtime's options in Create.
    pub(crate) options: Option<Any>,
    pub(crate) shim: Child,
    pub(crate) client: Client,
    pub(crate) events: mpsc::UnboundedReceiver<Envelope>,
    sender: mpsc::UnboundedSender<Envelope>,
    daemon: Option<AbortHandle>,
}

impl Rig {
    /// A shim without a container, and a daemon that hears its events.
    pub(crate) async fn new() -> Self {
        let mut rig = Self::without_daemon().await;
        rig.start_daemon();
        rig
    }

    /// The same, with the daemon away.
    pub(crate) async fn without_daemon() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("berth-shim-{}-{number}", std::process::id());
        let directory = tempfile::Builder::new().prefix(&id).tempdir().unwrap();
        let bundle = directory.path().join("bundle");
        make_root(&bundle.join("rootfs"));
        let mut spec = Spec::container(&format!("/{id}"));
        spec.process.as_mut().unwrap().env = vec!["PATH=/bin".to_owned()];
        let listener = StdListener::bind(directory.path().join("socket")).unwrap();
        let shim = serve(&id, directory.path(), listener);
        let client = Client::connect(&directory.path().join("socket")).await.unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            directory,
            id,
            spec,
            rootfs: Vec::new(),
            options: None,
            shim,
            client,
            events,
            sender,
            daemon: None,
        }
    }

    pub(crate) fn start_daemon(&mut self) {
        let listener = UnixListener::bind(self.path("daemon.ttrpc")).unwrap();
        let server = Server::new(Arc::new(Daemon(self.sender.clone())));
        let serving = tokio::spawn(async move { server.serve(&listener).await });
        self.daemon = Some(serving.abort_handle());
    }

    pub(crate) fn stop_daemon(&mut self) {
        self.daemon.take().unwrap().abort();
        fs::remove_file(self.path("daemon.ttrpc")).unwrap();
    }

    /// A path beside the bundle.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.path("bundle")
    }

    /// Makes a FIFO beside the bundle, as clients do.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let (cwd, mode) = (rustix::fs::CWD, rustix::fs::Mode::from(0o600));
        rustix::fs::mknodat(cwd, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path
    }

    /// Makes one call of the task service.
    pub(crate) async fn call<Q, R>(&self, method: &str, request: &Q) -> Result<R>
    where
        Q: Message,
        R: Message + Default,
    {
        self.client.call(TASK, method, request, &Options::timeout(HANGS)).await
    }

    /// Creates the container, whose init will run a line of shell.
    pub(crate) async fn create(&mut self, line: &str, names: &Names) -> Result<u32> {
        self.create_with(&["sh", "-c", line], names).await
    }

    pub(crate) async fn create_with(&mut self, args: &[&str], names: &Names) -> Result<u32> {
        let process = self.spec.process.as_mut().unwrap();
        process.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        process.terminal = names.terminal;
        let document = serde_json::to_vec(&self.spec).unwrap();
        fs::write(self.bundle().join("config.json"), document).unwrap();
        let request = api::CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle().to_str().unwrap().to_owned(),
            rootfs: self.rootfs.clone(),
            terminal: names.terminal,
            stdin: names.stdin.clone(),
            stdout: names.stdout.clone(),
            stderr: names.stderr.clone(),
            options: self.options.clone(),
            ..Default::default()
        };
        let response: api::CreateTaskResponse = self.call("Create", &request).await?;
        Ok(response.pid)
    }

    /// Makes an exec of a line of shell known.
    pub(crate) async fn exec(&self, exec_id: &str, line: &str, names: &Names) -> Result<()> {
        let process = spec::Process {
            args: ["sh", "-c", line].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            terminal: names.terminal,
            ..Default::default()
        };
        let request = api::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            terminal: names.terminal,
            stdin: names.stdin.clone(),
            stdout: names.stdout.clone(),
            stderr: names.stderr.clone(),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
                value: serde_json::to_vec(&process).unwrap(),
            }),
        };
        self.call("Exec", &request).await
    }

    pub(crate) async fn start(&self, exec_id: &str) -> Result<u32> {
        let request = api::StartRequest { id: self.id.clone(), exec_id: exec_id.to_owned() };
        let response: api::StartResponse = self.call("Start", &request).await?;
        Ok(response.pid)
    }

    /// Creates and starts the container.
    pub(crate) async fn run(&mut self, line: &str, names: &Names) -> u32 {
        self.create(line, names).await.unwrap();
        self.start("").await.unwrap()
    }

    /// Waits for the end of a process and returns its status.
    pub(crate) async fn wait(&self, exec_id: &str) -> u32 {
        let request = api::WaitRequest { id: self.id.clone(), exec_id: exec_id.to_owned() };
        let response: api::WaitResponse = self.call("Wait", &request).await.unwrap();
        response.exit_status
    }

    pub(crate) async fn kill(&self, exec_id: &str, signal: u32) -> Result<()> {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        self.call("Kill", &api::KillRequest { id, exec_id, signal, all: false }).await
    }

    pub(crate) async fn delete(&self, exec_id: &str) -> Result<api::DeleteResponse> {
        let request = api::DeleteRequest { id: self.id.clone(), exec_id: exec_id.to_owned() };
        self.call("Delete", &request).await
    }

    pub(crate) async fn state(&self, exec_id: &str) -> Result<api::StateResponse> {
        let request = api::StateRequest { id: self.id.clone(), exec_id: exec_id.to_owned() };
        self.call("State", &request).await
    }

    pub(crate) async fn status(&self, exec_id: &str) -> Status {
        self.state(exec_id).await.unwrap().status()
    }

    pub(crate) async fn close_stdin(&self, exec_id: &str) {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        let request = api::CloseIoRequest { id, exec_id, stdin: true };
        self.call::<_, ()>("CloseIO", &request).await.unwrap();
    }

    /// The next event, as its topic and its message.
    pub(crate) async fn event(&mut self) -> (String, Vec<u8>) {
        let envelope = tokio::time::timeout(HANGS, self.events.recv()).await.unwrap().unwrap();
        assert_eq!(envelope.namespace, "test");
        (envelope.topic, envelope.event.unwrap().value)
    }

    /// The topics of the next `count` events.
    pub(crate) async fn topics(&mut self, count: usize) -> Vec<String> {
        let mut topics = Vec::new();
        for _ in 0..count {
            topics.push(self.event().await.0);
        }
        topics
    }

    /// How many descriptors the shim has.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.shim.id())).unwrap().count()
    }

    /// How much memory the shim has in use, in KiB.
    pub(crate) fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.shim.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How many threads the shim has.
    pub(crate) fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.shim.id())).unwrap().count()
    }

    /// How many children the shim has.
    pub(crate) fn children(&self) -> usize {
        let pid = self.shim.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().count()
    }

    /// Waits, for as long as it takes, until `condition` holds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = std::time::Instant::now() + HANGS;
        while !condition(self) {
            assert!(std::time::Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Checks that nothing is left of the container's control group.
    pub(crate) fn assert_no_cgroup(&self) {
        let cgroup = berth_sys::cgroup::Cgroup::open(Path::new(&format!("/{}", self.id))).unwrap();
        assert!(cgroup.directories().is_empty(), "left: {:?}", cgroup.directories());
    }

    /// Runs the action `delete` and returns what it printed.
    pub(crate) fn clean_up(&self) -> api::DeleteResponse {
        let output = action(&self.id, &self.bundle(), "delete").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        api::DeleteResponse::decode(&*output.stdout).unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.shim.kill();
        let _ = self.shim.wait();
        let _ = action(&self.id, &self.bundle(), "delete").stdout(Stdio::null()).status();
    }
}

/// The shim's program with the flags that a daemon gives.
pub(crate) fn action(id: &str, bundle: &Path, action: &str) -> Command {
    let directory = bundle.parent().unwrap();
    let mut command = Command::new(SHIM);
    command.args(["-namespace", "test", "-id", id, "-address"]).arg(directory.join("daemon"));
    command.args(["-publish-binary", "/bin/false", "-bundle"]).arg(bundle).arg(action);
    command.current_dir(bundle).stdin(Stdio::null()).env_remove("TTRPC_ADDRESS");
    command
}

fn serve(id: &str, directory: &Path, listener: StdListener) -> Child {
    let log = fs::File::create(directory.join("log")).unwrap();
    let mut command = action(id, &directory.join("bundle"), "serve");
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn make_root(root: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::hard_link("/bin/busybox", root.join("bin/busybox"))
        .or_else(|_| fs::copy("/bin/busybox", root.join("bin/busybox")).map(drop))
        .unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}
