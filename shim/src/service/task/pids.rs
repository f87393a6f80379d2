//! Pids: the processes of the container, and which of them are execs.

use std::collections::HashMap;

use berth_proto::containerd::runc::v1::ProcessDetails;
use berth_proto::containerd::task::v3::PidsResponse;
use berth_proto::containerd::v1::types::ProcessInfo;
use berth_sys::cgroup::Cgroup;
use berth_types::Result;
use prost::{Message, Name};
use prost_types::Any;

use super::Task;

impl Task {
    /// # Errors
    /// NotFound without a container.
    pub(super) async fn pids(&self) -> Result<PidsResponse> {
        let pids = self.with_cgroup(Cgroup::pids).await?;
        let execs: HashMap<i32, String> = self
            .lock()
            .values()
            .filter(|process| !process.is_init())
            .map(|process| (process.pid(), process.exec_id.clone()))
            .collect();
        let info = |pid| {
            let details = ProcessDetails { exec_id: execs.get(&pid)?.clone() };
            Some(Any { type_url: ProcessDetails::full_name(), value: details.encode_to_vec() })
        };
        let processes =
            pids.into_iter().map(|pid| ProcessInfo { pid: pid as u32, info: info(pid) }).collect();
        Ok(PidsResponse { processes })
    }
}
