//! `-info`: what this runtime is and can do.

use berth_proto::containerd::types::{RuntimeInfo, RuntimeVersion};
use prost_types::Any;

/// containerd's name for the OCI document of a runtime's features.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// The answer to `-info`.
pub(super) fn info() -> RuntimeInfo {
    RuntimeInfo {
        name: "io.containerd.berth.v1".to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
        }),
        options: None,
        features: Some(Any {
            type_url: FEATURES.to_owned(),
            value: features().to_string().into_bytes(),
        }),
        annotations: Default::default(),
    }
}

/// The runtime specification's `features.md` document.
fn features() -> serde_json::Value {
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
