//! Being told that the kernel killed for want of memory. Every such row is announced once, and
//! before the exit that it caused.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_proto::containerd::events::TaskOom;
use berth_sys::cgroup::Cgroup;
use berth_types::{Result, ResultExt};
use tokio::net::unix::pipe;

use super::Task;

/// The pauses between looks for the kill that an alarm announces, in milliseconds.
const LOOKS: [u64; 7] = [1, 5, 20, 50, 100, 300, 600];

/// How many kills have been announced.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Task {
    /// Announces kills of the container's cgroup from now on, for as long as there is one.
    pub(super) fn watch_memory(self: &Arc<Self>, cgroup: &Cgroup) {
        match watch(cgroup) {
            Ok(alarm) => {
                let task = Arc::downgrade(self);
                tokio::spawn(async move {
                    while let Ok(()) = alarm.readable().await {
                        clear(&alarm);
                        let Some(task) = task.upgrade() else { return };
                        // The removal of a control group is an alarm too, its last.
                        if task.container.read().await.is_none() {
                            return;
                        }
                        task.look_for_kills().await;
                    }
                });
            }
            Err(error) => tracing::warn!("kills for want of memory are told only later: {error}"),
        }
    }

    /// v1 gives the alarm when memory runs out, a moment before it kills.
    async fn look_for_kills(&self) {
        for pause in LOOKS {
            if self.report_memory().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Announces kills that have not been, and says whether there were any.
    pub(super) async fn report_memory(&self) -> bool {
        let container = self.container.read().await;
        let Some(container) = &*container else { return false };
        let kills = match container.cgroup().oom_kills() {
            Ok(kills) => kills,
            Err(error) => {
                tracing::warn!("kills for want of memory are not known: {error}");
                return false;
            }
        };
        let new = self.out_of_memory.0.fetch_max(kills, Ordering::Relaxed) < kills;
        if new {
            self.events.push("/tasks/oom", &TaskOom { container_id: self.id.clone() });
        }
        new
    }
}

/// Takes what makes the alarm readable, which is of no interest in itself.
fn clear(alarm: &pipe::Receiver) {
    let _ = alarm.try_read(&mut [0; 4096]);
}

/// Something that becomes readable, like a pipe, when memory runs out.
fn watch(cgroup: &Cgroup) -> Result<pipe::Receiver> {
    let watch = OwnedFd::from(cgroup.watch_oom()?);
    pipe::Receiver::from_owned_fd_unchecked(watch).context(|| "watch for want of memory")
}
