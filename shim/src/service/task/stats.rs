//! Stats: what the container has used, in the form that containerd's clients read.

use berth_proto::containerd::task::v3::{StatsRequest, StatsResponse};
use berth_sys::cgroup::Cgroup;
use berth_types::Result;

use super::Shim;
use crate::service::metrics;

impl Shim {
    /// # Errors
    /// NotFound without a container.
    pub(super) async fn stats(&self, request: StatsRequest) -> Result<StatsResponse> {
        let stats = self.with_cgroup(&request.id, Cgroup::stats).await?;
        Ok(StatsResponse { stats: Some(metrics::encode(&stats)) })
    }
}
