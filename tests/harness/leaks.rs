//! What an engine may not leave behind: shims, mounts and cgroups.
//!
//! Everything is looked for by the names that only one test uses, its namespace and its scratch
//! directories, so that tests run side by side.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where the control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Waits for everything to be gone, and answers what is not after ten seconds.
pub fn wait_for_none(namespace: &str, places: [&Path; 2]) -> Vec<String> {
    let start = Instant::now();
    loop {
        let left = find(namespace, places);
        if left.is_empty() || start.elapsed() > Duration::from_secs(10) {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What there is now, a line each.
pub fn find(namespace: &str, places: [&Path; 2]) -> Vec<String> {
    let mut found: Vec<String> =
        shims(namespace).into_iter().map(|pid| format!("shim {pid}")).collect();
    let left = mounts(places).into_iter().filter(|mount| !is_layer(mount));
    found.extend(left.map(|mount| format!("mount {mount}")));
    found.extend(cgroups(namespace).into_iter().map(|cgroup| format!("cgroup {cgroup}")));
    found
}

/// Removes what is left, so that one failed test does not fail the next.
pub(crate) fn remove(namespace: &str, places: [&Path; 2]) {
    for pid in shims(namespace) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for cgroup in cgroups(namespace) {
        for pid in fs::read_to_string(format!("{cgroup}/cgroup.procs")).unwrap_or_default().lines()
        {
            let _ = pid.parse().map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
        let _ = fs::remove_dir(&cgroup);
    }
    for own in namespace_cgroups(namespace) {
        let _ = fs::remove_dir(own);
    }
    for mount in mounts(places).iter().rev() {
        let _ = umount2(mount.as_str(), MntFlags::MNT_DETACH);
    }
}

/// Shims that serve `namespace`, by the command line that every shim is started with.
pub fn shims(namespace: &str) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("read /proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|&byte| byte == 0);
        let program = words.next().unwrap_or_default();
        let is_shim = String::from_utf8_lossy(program).contains("containerd-shim-");
        is_shim && words.any(|word| word == namespace.as_bytes())
    })
    .collect()
}

fn mounts(places: [&Path; 2]) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
    let is_ours = |target: &&str| places.iter().any(|place| Path::new(target).starts_with(place));
    targets.filter(is_ours).map(str::to_owned).collect()
}

/// Whether a mount is that of a layer, which stays for a while for the next container.
fn is_layer(mount: &str) -> bool {
    mount.contains("/snapshots/erofs/") && mount.ends_with("/mnt")
}

/// Control groups of the containers of `namespace`. The namespace's own group is no leak: runc
/// leaves it too, because other containers may come.
fn cgroups(namespace: &str) -> Vec<String> {
    let mut found = Vec::new();
    for own in namespace_cgroups(namespace) {
        let containers = fs::read_dir(own).into_iter().flatten().flatten();
        let groups = containers.filter(|entry| entry.path().is_dir());
        found.extend(groups.map(|entry| entry.path().display().to_string()));
    }
    found
}

/// The groups of `namespace` itself, one in each hierarchy that has it.
fn namespace_cgroups(namespace: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    let groups = hierarchies.map(|hierarchy| hierarchy.path().join(namespace));
    groups.filter(|group| group.is_dir()).collect()
}
