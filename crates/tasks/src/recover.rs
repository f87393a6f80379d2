//! Finding the tasks that an earlier daemon left running.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use berth_proto::containerd::task::v3::{ShutdownRequest, StateResponse};
use berth_proto::containerd::v1::types::Status;
use berth_types::{Error, Kind, Result, id};
use tokio::task::JoinSet;

use crate::bundle::{self, Bundle, Owner};
use crate::create::{farewell, report};
use crate::exit::Exit;
use crate::log::LogRelay;
use crate::runtime::Runtime;
use crate::shim::{self, Shim};
use crate::{Task, Tasks, stray};

impl Tasks {
    /// Takes over every bundle on disk, all at once: reconnects to the shims that live, announces
    /// the exits that nobody was there to hear of, and cleans up after the shims that died. To be
    /// called once, before clients are served and after the events' socket is.
    ///
    /// A bundle that can't be taken over is reported in the log and left alone.
    ///
    /// # Errors
    /// When the bundles can't be listed.
    pub async fn recover(&self) -> Result<()> {
        self.adopt_strays().await?;
        let sandboxes = bundle::all(&self.config, Owner::Sandbox)?;
        let all = sandboxes.into_iter().chain(bundle::all(&self.config, Owner::Task)?);
        let mut recoveries = JoinSet::new();
        for bundle in all {
            if id::validate("", &bundle.namespace).is_err() || id::validate("", &bundle.id).is_err()
            {
                continue;
            }
            let tasks = self.clone();
            recoveries.spawn(async move {
                let taken_over = match bundle.owner {
                    Owner::Task => tasks.take_over(&bundle).await,
                    Owner::Sandbox => tasks.take_over_sandbox(&bundle).await,
                };
                report(&bundle, taken_over);
            });
        }
        while recoveries.join_next().await.is_some() {}
        self.early.end();
        Ok(())
    }

    async fn take_over(&self, bundle: &Bundle) -> Result<()> {
        let place = self.table.reserve(&bundle.namespace, &bundle.id)?;
        let runtime = bundle.runtime()?;
        let shim = match connect(bundle, &runtime).await {
            Err(error) if dead(error.kind()) => return self.bury_bundle(bundle, &runtime).await,
            outcome => outcome?,
        };
        let log = Arc::new(LogRelay::start(bundle)?);
        let task = Arc::new(Task::new(bundle.clone(), runtime, shim, log));
        match task.state("").await {
            Ok(state) => self.catch_up(&task, &state),
            Err(error) if dead(error.kind()) => {
                return self.bury_bundle(bundle, &task.runtime).await;
            }
            // The daemon died before the container was made.
            Err(error) if error.kind() == Kind::NotFound => {
                let request = ShutdownRequest { id: bundle.id.clone(), now: true };
                farewell(bundle, task.shim.call::<_, ()>(shim::SHUTDOWN, &request).await);
                return bundle.remove();
            }
            // It hangs, but it lives: its container is not to be killed for that.
            Err(error) => {
                report(bundle, Err(error));
                self.ask_again(Arc::clone(&task));
            }
        }
        place.fill(Arc::clone(&task));
        if let Some(exit) = self.early.get(&bundle.namespace, &bundle.id) {
            // It is told of already.
            task.announce(exit);
        }
        self.watch(task, None);
        Ok(())
    }

    /// Notes what happened while no daemon was there.
    fn catch_up(&self, task: &Task, state: &StateResponse) {
        task.pid.store(state.pid, Ordering::Relaxed);
        if state.status() == Status::Stopped {
            self.announce_exit(task, Exit { status: state.exit_status, at: state.exited_at });
        }
    }

    /// Catches up with a task whose shim did not answer in time, once it does.
    fn ask_again(&self, task: Arc<Task>) {
        let tasks = self.clone();
        tokio::spawn(async move {
            loop {
                // Each question has its own limit.
                let state = tokio::select! {
                    state = task.state("") => state,
                    () = task.gone.cancelled() => return,
                };
                match state {
                    Ok(state) => return tasks.catch_up(&task, &state),
                    Err(error) if error.kind() == Kind::DeadlineExceeded => {}
                    // The death of its shim is seen to elsewhere.
                    Err(error) => return report(&task.bundle, Err(error)),
                }
            }
        });
    }

    /// Cleans up after a shim that died while no daemon was there.
    async fn bury_bundle(&self, bundle: &Bundle, runtime: &Runtime) -> Result<()> {
        let Bundle { namespace, id, .. } = bundle;
        tracing::warn!(%namespace, %id, "the shim is gone; its container is cleaned up");
        let exit = self.clean_up(bundle, runtime).await;
        end_unreachable(bundle, runtime);
        self.publish_exit(bundle, 0, exit);
        self.publish_delete(bundle, 0, exit);
        bundle.remove()
    }
}

/// Connects to the shim that the bundle remembers.
///
/// # Errors
/// `Unavailable` when it is dead or was never started.
pub(crate) async fn connect(bundle: &Bundle, runtime: &Runtime) -> Result<Shim> {
    let listening = match runtime {
        Runtime::Own => bundle.socket().map(|socket| (socket, 2)),
        Runtime::Foreign(_) => {
            bundle.bootstrap()?.map(|bootstrap| (bootstrap.socket().to_owned(), bootstrap.version))
        }
    };
    let (socket, version) =
        listening.ok_or_else(|| Error::unavailable("the shim was never started"))?;
    Shim::connect(bundle, &socket, version).await
}

/// Ends a shim of ours that lost its socket. Where a socket is left, nobody listened: there is no
/// shim.
pub(crate) fn end_unreachable(bundle: &Bundle, runtime: &Runtime) {
    if *runtime == Runtime::Own && bundle.socket().is_none_or(|socket| !socket.exists()) {
        stray::kill_shim_of(&bundle.path);
    }
}

/// Whether a failure means that nobody is at the other end.
pub(crate) fn dead(kind: Kind) -> bool {
    kind == Kind::Unavailable
}
