//! What the daemon is and has.

use std::fs;

use berth_metadata::Scope;
use berth_proto::berth::v1::{InfoResponse, ListRequest, State};
use berth_sys::cgroup::{Hierarchies, Version};
use berth_tasks::DEFAULT_RUNTIME;
use berth_types::{Platform, Result};

use crate::Engine;

impl Engine {
    /// The daemon, the machine, and how much there is in a namespace.
    ///
    /// # Errors
    /// Those of the database.
    pub fn info(&self, scope: Scope) -> Result<InfoResponse> {
        let parts = self.parts();
        let images = scope.images().list(&[])?.len();
        let containers = self.containers(scope.clone()).list(ListRequest { all: true })?.containers;
        let count = |states: &[State]| {
            containers.iter().filter(|container| states.contains(&container.state())).count() as u32
        };
        let kernel = rustix::system::uname();
        let machine = rustix::system::sysinfo();
        Ok(InfoResponse {
            version: parts.version.clone(),
            root: parts.root.to_string_lossy().into_owned(),
            state: parts.state.to_string_lossy().into_owned(),
            containers_running: count(&[State::Running]),
            containers_paused: count(&[State::Paused]),
            containers_stopped: count(&[State::Created, State::Exited, State::Unknown]),
            images: images as u32,
            snapshotter: scope.snapshotter()?,
            default_runtime: DEFAULT_RUNTIME.to_owned(),
            cgroup: cgroup().to_owned(),
            kernel: kernel.release().to_string_lossy().into_owned(),
            operating_system: operating_system(),
            architecture: Platform::host().architecture,
            processors: std::thread::available_parallelism().map_or(1, usize::from) as u32,
            memory: machine.totalram * u64::from(machine.mem_unit),
            pid: std::process::id(),
        })
    }
}

/// How control groups are mounted.
fn cgroup() -> &'static str {
    match Hierarchies::discover().map(|hierarchies| hierarchies.version()) {
        Ok(Version::V1) => "v1",
        Ok(Version::Hybrid) => "hybrid",
        Ok(Version::V2) => "v2",
        Err(_) => "none",
    }
}

/// The system's own name for itself: `PRETTY_NAME` of os-release(5).
fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    pretty_name(&text).unwrap_or("Linux").to_owned()
}

fn pretty_name(text: &str) -> Option<&str> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let value = value.trim();
    Some(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_named_with_and_without_quotes() {
        assert_eq!(pretty_name("ID=x\nPRETTY_NAME=\"A B/1\"\n"), Some("A B/1"));
        assert_eq!(pretty_name("PRETTY_NAME=Plain"), Some("Plain"));
        assert_eq!(pretty_name("ID=x"), None);
    }
}
