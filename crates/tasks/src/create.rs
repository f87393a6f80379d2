//! Making a task: bundle, shim, container.

use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use berth_proto::containerd::task::v3::{CreateTaskRequest, CreateTaskResponse, ShutdownRequest};
use berth_proto::containerd::types::Mount;
use berth_proto::containerd::v1::types::Status;
use berth_types::{Error, Kind, Result, ResultExt, id, spec};
use prost_types::Any;

use crate::bundle::{Bundle, Owner};
use crate::child::Child;
use crate::log::{self, LogRelay};
use crate::runtime::Runtime;
use crate::shim::{self, Shim};
use crate::{Sandbox, Task, Tasks, bootstrap};

/// How long a shim may take to end, once it is told to or has closed its connection.
pub(crate) const FAREWELL: Duration = Duration::from_secs(3);

/// What a task is made of.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// The tenant.
    pub namespace: String,
    /// The container's id, which becomes the task's.
    pub id: String,
    /// Name of the runtime, or an absolute path of a shim.
    pub runtime: String,
    /// The OCI runtime specification, JSON.
    pub spec: Vec<u8>,
    /// The runtime's options, for the shim to understand.
    pub options: Option<Any>,
    /// The mounts that make the root file system, from a snapshotter.
    pub rootfs: Vec<Mount>,
    /// Where standard input comes from: a path or URI that the shim understands; empty for none.
    pub stdin: String,
    /// Where standard output goes.
    pub stdout: String,
    /// Where standard error goes.
    pub stderr: String,
    /// The init gets a terminal.
    pub terminal: bool,
    /// Directory of a checkpoint to go on from; empty for none.
    pub checkpoint: String,
    /// The sandbox whose shim is to run the container, whatever `runtime` says; empty for none.
    pub sandbox: String,
}

/// A shim that runs and has no container yet.
pub(crate) struct Started {
    pub(crate) shim: Shim,
    pub(crate) log: Arc<LogRelay>,
    pub(crate) child: Option<Child>,
}

impl Tasks {
    /// Makes a task, whose init then waits to be started. It is made, or undone, even if the
    /// returned future is dropped.
    ///
    /// # Errors
    /// `AlreadyExists` when the container has a task, `NotFound` for an unknown runtime, and the
    /// shim's own failures.
    pub async fn create(&self, create: Create) -> Result<Arc<Task>> {
        let tasks = self.clone();
        crate::own_task(async move { tasks.create_now(create).await }).await
    }

    async fn create_now(&self, create: Create) -> Result<Arc<Task>> {
        id::validate("namespace", &create.namespace)?;
        id::validate("container id", &create.id)?;
        let place = self.table.reserve(&create.namespace, &create.id).await?;
        let sandbox = match create.sandbox.as_str() {
            "" => None,
            sandbox => Some(self.sandbox(&create.namespace, sandbox)?),
        };
        let runtime = match &sandbox {
            Some(sandbox) => sandbox.runtime.clone(),
            None => Runtime::resolve(&self.config, &create.runtime)?,
        };
        let bundle = Bundle::of(&self.config, Owner::Task, &create.namespace, &create.id);
        bundle.create(&create.spec)?;
        let (task, child) = match self.launch(&bundle, &runtime, sandbox, create).await {
            Ok(launched) => launched,
            Err(error) => {
                report(&bundle, bundle.remove());
                return Err(error);
            }
        };
        let task = Arc::new(task);
        place.fill(Arc::clone(&task));
        self.watch(Arc::clone(&task), child);
        Ok(task)
    }

    /// Starts the shim and makes the container, or undoes both.
    async fn launch(
        &self,
        bundle: &Bundle,
        runtime: &Runtime,
        sandbox: Option<Arc<Sandbox>>,
        create: Create,
    ) -> Result<(Task, Option<Child>)> {
        let group = spec::group(&create.spec)?;
        let Started { shim, log, child } = match (sandbox, runtime) {
            (Some(sandbox), _) => sandbox.join(bundle)?,
            (None, Runtime::Own) => self.join_or_start(bundle, group.as_deref()).await?,
            (None, Runtime::Foreign(binary)) => {
                self.start_foreign(bundle, binary, create.options.as_ref()).await?
            }
        };
        let request = CreateTaskRequest {
            id: create.id,
            bundle: bundle.path.to_string_lossy().into_owned(),
            rootfs: create.rootfs,
            terminal: create.terminal,
            stdin: create.stdin,
            stdout: create.stdout,
            stderr: create.stderr,
            checkpoint: create.checkpoint,
            parent_checkpoint: String::new(),
            options: create.options,
        };
        match shim.call::<_, CreateTaskResponse>(shim::CREATE, &request).await {
            Ok(CreateTaskResponse { pid }) => {
                let task = Task::new(bundle.clone(), runtime.clone(), shim, log);
                task.join(group);
                task.pid.store(pid, Ordering::Relaxed);
                task.note(Status::Created);
                Ok((task, child))
            }
            Err(error) => {
                let started = Started { shim, log, child };
                self.abandon(bundle, runtime, started, error.kind()).await;
                Err(error)
            }
        }
    }

    /// The shim that the container's group has, or a new one.
    async fn join_or_start(&self, bundle: &Bundle, group: Option<&str>) -> Result<Started> {
        let mut companions = self.table.list(&bundle.namespace).into_iter();
        let companion = group.and_then(|group| companions.find(|task| task.is_of(group)));
        let Some(companion) = companion else { return self.start_own(bundle).await };
        bundle.remember_socket(companion.shim.socket())?;
        Ok(Started {
            shim: companion.shim.for_container(bundle),
            log: companion.log.clone(),
            child: None,
        })
    }

    /// Starts our own shim with one exec: its standard input is its socket, which listens already,
    /// so that it need not be waited for.
    pub(crate) async fn start_own(&self, bundle: &Bundle) -> Result<Started> {
        let log = Arc::new(LogRelay::start(bundle)?);
        let socket = bundle.new_socket()?;
        // Its directory is closed to others too.
        let bind = || {
            let listener = UnixListener::bind(&socket)?;
            fs::set_permissions(&socket, Permissions::from_mode(0o600)).map(|()| listener)
        };
        let listener = bind().context(|| format!("bind shim socket {}", socket.display()))?;
        let mut command = self.own_shim.command();
        bootstrap::describe(&mut command, &self.config, bundle);
        command.arg("-bundle").arg(&bundle.path).arg("serve");
        command
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(log::writer(bundle)?)
            // Out of reach of the signals that a terminal sends to the daemon.
            .process_group(0);
        let mut child = Child::spawn(&mut command)?;
        match Shim::connect(bundle, &socket, 2).await {
            Ok(shim) => Ok(Started { shim, log, child: Some(child) }),
            Err(error) => {
                report(bundle, child.wait_or_kill(Duration::ZERO).await.map(drop));
                Err(error)
            }
        }
    }

    pub(crate) async fn start_foreign(
        &self,
        bundle: &Bundle,
        binary: &Path,
        options: Option<&Any>,
    ) -> Result<Started> {
        let log = Arc::new(LogRelay::start(bundle)?);
        let connect = async {
            let bootstrap = bootstrap::start(&self.config, binary, bundle, options).await?;
            Shim::connect(bundle, bootstrap.socket(), bootstrap.version).await
        };
        match connect.await {
            Ok(shim) => Ok(Started { shim, log, child: None }),
            Err(error) => {
                report(bundle, bootstrap::delete(&self.config, binary, bundle).await.map(drop));
                Err(error)
            }
        }
    }

    /// Ends a shim that could not make its container. It has undone what it did, unless it died or
    /// hangs (`failure` tells).
    pub(crate) async fn abandon(
        &self,
        bundle: &Bundle,
        runtime: &Runtime,
        started: Started,
        failure: Kind,
    ) {
        let broken = matches!(failure, Kind::Unavailable | Kind::DeadlineExceeded);
        if !broken && may_end_shim(bundle, runtime) {
            let request = ShutdownRequest { id: bundle.id.clone(), now: true };
            farewell(bundle, started.shim.call::<_, ()>(shim::SHUTDOWN, &request).await);
        }
        if let Some(mut child) = started.child {
            let patience = if broken { Duration::ZERO } else { FAREWELL };
            report(bundle, child.wait_or_kill(patience).await.map(drop));
        }
        if broken {
            let binary = runtime.binary(&self.config);
            report(bundle, bootstrap::delete(&self.config, binary, bundle).await.map(drop));
        }
    }
}

/// Whether the shim may be told to end after its container. Ours knows by itself whether it is
/// still needed; others end with their sandbox.
pub(crate) fn may_end_shim(bundle: &Bundle, runtime: &Runtime) -> bool {
    *runtime == Runtime::Own || bundle.sandbox().is_none()
}

/// Logs a failure of a teardown, which goes on.
pub(crate) fn report(bundle: &Bundle, outcome: Result<()>) {
    if let Err(error) = outcome {
        let Bundle { namespace, id, .. } = bundle;
        tracing::warn!(%namespace, %id, %error, "cleaning up");
    }
}

/// As [`report`], for the call that tells a shim to end: ending at once is an answer.
pub(crate) fn farewell(bundle: &Bundle, outcome: Result<()>) {
    report(
        bundle,
        outcome.or_else(|error: Error| match error.kind() {
            Kind::Unavailable => Ok(()),
            _ => Err(error),
        }),
    );
}
