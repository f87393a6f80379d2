//! Being told that the kernel killed for want of memory. Every such row is announced once, and
//! before the exit that it caused.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_proto::containerd::events::TaskOom;
use berth_sys::cgroup::Cgroup;
use berth_types::{Result, ResultExt};
use tokio::net::unix::pipe;

use super::Shim;

/// How many kills have been announced.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Shim {
    /// Announces kills of the container's cgroup from now on, for as long as there is one.
    pub(super) fn watch_memory(self: &Arc<Self>, cgroup: &Cgroup) {
        match watch(cgroup) {
            Ok(alarm) => {
                let shim = Arc::downgrade(self);
                tokio::spawn(async move {
                    while let Ok(()) = alarm.readable().await {
                        let mut counts = [0; 4096];
                        let _ = alarm.try_read(&mut counts);
                        let Some(shim) = shim.upgrade() else { return };
                        if !shim.report_memory().await {
                            return;
                        }
                    }
                });
            }
            Err(error) => tracing::warn!("kills for want of memory are told only later: {error}"),
        }
    }

    /// Announces kills that have not been; false when there is no container any more.
    pub(super) async fn report_memory(&self) -> bool {
        let container = self.container.read().await;
        let Some(container) = &*container else { return false };
        match container.cgroup().oom_kills() {
            Ok(kills) => {
                if self.out_of_memory.0.fetch_max(kills, Ordering::Relaxed) < kills {
                    let event = TaskOom { container_id: self.id.clone() };
                    self.events.push("/tasks/oom", &event);
                }
            }
            Err(error) => tracing::warn!("kills for want of memory are not known: {error}"),
        }
        true
    }
}

/// Something that becomes readable, like a pipe, when memory runs out.
fn watch(cgroup: &Cgroup) -> Result<pipe::Receiver> {
    let watch = OwnedFd::from(cgroup.watch_oom()?);
    pipe::Receiver::from_owned_fd_unchecked(watch).context(|| "watch for want of memory")
}
