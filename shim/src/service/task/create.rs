//! Create: the container, with its init waiting to be started.

use std::path::Path;
use std::sync::Arc;

use berth_proto::containerd::events::{TaskCreate, TaskIo};
use berth_proto::containerd::runc::v1::Options;
use berth_proto::containerd::task::v3::{CreateTaskRequest, CreateTaskResponse};
use berth_sys::cgroup::Cgroup;
use berth_types::spec;
use berth_types::{Error, Result, ResultExt};
use prost::{Message, Name};
use prost_types::Any;

use super::Task;
use crate::container::{self, Container, CreateRequest};
use crate::service::process::{Phase, Process, Step};
use crate::service::stdio::{Names, Owner};

impl Task {
    /// # Errors
    /// Those of [`Container::create`].
    pub(crate) async fn create(
        self: &Arc<Self>,
        request: CreateTaskRequest,
    ) -> Result<CreateTaskResponse> {
        if !request.checkpoint.is_empty() {
            return Err(Error::unimplemented("this shim restores no checkpoints"));
        }
        let process = self.admit(&request)?;
        let step = process.begin(Phase::Added)?;
        match self.create_container(&request, &process, &step).await {
            Ok(pid) => {
                self.events.push("/tasks/create", &created(request, pid));
                let exit = step.done(Phase::Created);
                self.announce_held(&process, exit).await;
                Ok(CreateTaskResponse { pid: pid as u32 })
            }
            Err(error) => {
                self.lock().clear();
                Err(error)
            }
        }
    }

    /// Makes the init known.
    fn admit(&self, request: &CreateTaskRequest) -> Result<Arc<Process>> {
        let names = Names {
            terminal: request.terminal,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
        };
        let process = Arc::new(Process::new("", names, None)?);
        self.lock().insert(String::new(), process.clone());
        Ok(process)
    }

    async fn create_container(
        self: &Arc<Self>,
        request: &CreateTaskRequest,
        process: &Arc<Process>,
        step: &Step<'_>,
    ) -> Result<i32> {
        let options = options(request.options.as_ref())?;
        join_cgroup(&options.shim_cgroup)?;
        let spec = container::read_spec(&self.bundle.join("config.json"))?;
        let owner = Owner { uid: options.io_uid, gid: options.io_gid };
        let (io, ends) = process.streams.open(owner, self.writer(&self.id)).await?;
        let mut slot = self.container.write().await;
        let _expecting = self.reaper.expect();
        let mut container = Container::create(CreateRequest {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            rootfs: request.rootfs.iter().map(mount).collect(),
            spec,
            io,
            no_new_keyring: options.no_new_keyring,
            no_pivot: options.no_pivot_root,
            preserved_fds: 0,
            gate: None,
        })
        .await?;
        let terminal = container.take_terminal();
        let init = container.init();
        let pid = init.pid;
        let begun = step.born(pid, &init.pidfd).and_then(|()| {
            if let Some(exit) = self.reaper.claim(pid, &init.pidfd, self, process) {
                step.hold(exit);
            }
            self.hold_root(&request.rootfs, pid)?;
            process.streams.connect(ends, terminal)
        });
        if let Err(error) = begun {
            container.destroy().await?;
            return Err(error);
        }
        self.watch_memory(container.cgroup());
        *slot = Some(container);
        Ok(pid)
    }
}

fn created(request: CreateTaskRequest, pid: i32) -> TaskCreate {
    TaskCreate {
        container_id: request.id,
        bundle: request.bundle,
        rootfs: request.rootfs,
        io: Some(TaskIo {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        }),
        checkpoint: request.checkpoint,
        pid: pid as u32,
    }
}

/// runc's options, which clients of its shim send; what has no meaning here is passed over.
fn options(any: Option<&Any>) -> Result<Options> {
    let Some(any) = any.filter(|any| any.type_url.ends_with(&Options::full_name())) else {
        return Ok(Options::default());
    };
    let options = Options::decode(&*any.value)
        .map_err(|error| Error::invalid_argument(format!("runtime options: {error}")))?;
    if options.systemd_cgroup {
        return Err(Error::unimplemented(
            "runtime option SystemdCgroup: control groups are made in the kernel's filesystem \
             here, not by systemd: leave it out",
        ));
    }
    Ok(options)
}

/// Moves the shim into the control group that its options name, which must be there.
fn join_cgroup(path: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let join = || Cgroup::open(Path::new(path))?.join(Path::new(path));
    join().context(|| "runtime option ShimCgroup")
}

fn mount(mount: &berth_proto::containerd::types::Mount) -> spec::Mount {
    spec::Mount {
        destination: mount.target.clone(),
        kind: Some(mount.r#type.clone()),
        source: Some(mount.source.clone()),
        options: mount.options.clone(),
        ..Default::default()
    }
}
