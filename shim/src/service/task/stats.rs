//! Stats: what the container has used, in the form that containerd's clients read.

use berth_proto::containerd::task::v3::StatsResponse;
use berth_sys::cgroup::Cgroup;
use berth_types::Result;

use super::Task;
use crate::service::metrics;

impl Task {
    /// # Errors
    /// NotFound without a container.
    pub(super) async fn stats(&self) -> Result<StatsResponse> {
        let stats = self.with_cgroup(Cgroup::stats).await?;
        Ok(StatsResponse { stats: Some(metrics::encode(&stats)) })
    }
}
