//! What a container is unless told otherwise: containerd's default specification, with Docker's
//! capabilities and without its restrictions on setuid programs, because people run images that
//! were written for Docker.

use super::{
    Capabilities, DeviceRule, Linux, Mount, Namespace, OCI_VERSION, Process, Resources, Rlimit,
    Root, Spec, default_seccomp,
};

/// Docker's. What containerd 2 leaves out of them (MKNOD, NET_RAW, SETFCAP, SYS_CHROOT and
/// AUDIT_WRITE) is what ping, chroot, dpkg and sudo need.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const NAMESPACES: [&str; 6] = ["pid", "ipc", "uts", "mount", "network", "cgroup"];

/// What tells of the host or of other containers.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What changes the host.
const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Open files: programs that use select(2) need the low one, databases raise it to the high one.
/// This is the low one.
const OPEN_FILES: u64 = 1024;
/// To how many open files the programs of a container may raise their limit.
pub const MOST_OPEN_FILES: u64 = 524_288;

/// Destination, type, source and options. containerd's `/run` is not among them: it would hide what
/// images have there, such as the directories of databases' sockets.
const MOUNTS: [(&str, &str, &str, &[&str]); 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
];

impl Spec {
    /// A container that runs nothing yet, as root in `/`, in the cgroup `cgroups_path`.
    pub fn container(cgroups_path: &str) -> Self {
        Self {
            oci_version: OCI_VERSION.to_owned(),
            process: Some(process()),
            root: Some(Root { path: "rootfs".to_owned(), readonly: false }),
            mounts: MOUNTS.iter().map(mount).collect(),
            linux: Some(linux(cgroups_path)),
            ..Self::default()
        }
    }
}

fn process() -> Process {
    let set = CAPABILITIES.map(str::to_owned).to_vec();
    let capabilities = Capabilities {
        bounding: set.clone(),
        effective: set.clone(),
        permitted: set,
        ..Capabilities::default()
    };
    let files =
        Rlimit { kind: "RLIMIT_NOFILE".to_owned(), hard: MOST_OPEN_FILES, soft: OPEN_FILES };
    Process {
        cwd: "/".to_owned(),
        capabilities: Some(capabilities),
        rlimits: vec![files],
        ..Process::default()
    }
}

fn mount((destination, kind, source, options): &(&str, &str, &str, &[&str])) -> Mount {
    Mount {
        destination: (*destination).to_owned(),
        kind: Some((*kind).to_owned()),
        source: Some((*source).to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

fn linux(cgroups_path: &str) -> Linux {
    let deny_all = DeviceRule { access: Some("rwm".to_owned()), ..DeviceRule::default() };
    Linux {
        cgroups_path: Some(cgroups_path.to_owned()),
        resources: Some(Resources { devices: vec![deny_all], ..Resources::default() }),
        namespaces: NAMESPACES
            .iter()
            .map(|kind| Namespace { kind: (*kind).to_owned(), path: None })
            .collect(),
        seccomp: Some(default_seccomp(&CAPABILITIES.map(str::to_owned))),
        masked_paths: MASKED.map(str::to_owned).to_vec(),
        readonly_paths: READONLY.map(str::to_owned).to_vec(),
        ..Linux::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_inherited_and_no_device_allowed() {
        let spec = Spec::container("/default/a");
        let capabilities = spec.process.unwrap().capabilities.unwrap();
        assert!(capabilities.inheritable.is_empty() && capabilities.ambient.is_empty());
        let devices = spec.linux.unwrap().resources.unwrap().devices;
        assert!(devices.iter().all(|rule| !rule.allow));
    }

    #[test]
    fn a_document_survives_the_round_trip() {
        let spec = Spec::container("/default/a");
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
    }
}
