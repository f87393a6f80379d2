//! What this runtime can do, for those who ask before they ask for it.

/// The runtime specification's `features.md` document.
pub fn features() -> serde_json::Value {
    serde_json::json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop",
        ],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "noatime",
            "nodev", "nodiratime", "noexec", "nosuid", "private", "ratime", "rbind", "rdev",
            "relatime", "remount", "rexec", "rnoexec", "rnosuid", "rnodev", "ro", "rprivate", "rro",
            "rrw", "rshared", "rslave", "rsuid", "runbindable", "rw", "shared", "slave",
            "strictatime", "suid", "sync", "unbindable",
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "cgroup": { "v1": true, "v2": true, "systemd": false, "rdma": true },
            "seccomp": { "enabled": true },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
        },
    })
}
