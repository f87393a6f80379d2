//! What this runtime can do, for those who ask before they ask for it.

use berth_sys::capability;
use serde_json::{Value, json};

const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

const MOUNT_OPTIONS: &str = "
    acl async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noacl
    noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid
    nosymfollow private ratime rbind rdev rdiratime relatime remount rexec ridmap rnoatime rnodev
    rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro
    rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime
    suid symfollow sync tmpcopyup unbindable
";

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

const ACTIONS: &str = "
    SCMP_ACT_ALLOW SCMP_ACT_ERRNO SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS SCMP_ACT_KILL_THREAD
    SCMP_ACT_LOG SCMP_ACT_NOTIFY SCMP_ACT_TRACE SCMP_ACT_TRAP
";

const OPERATORS: &str = "
    SCMP_CMP_EQ SCMP_CMP_GE SCMP_CMP_GT SCMP_CMP_LE SCMP_CMP_LT SCMP_CMP_MASKED_EQ SCMP_CMP_NE
";

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &str = "SCMP_ARCH_X32 SCMP_ARCH_X86 SCMP_ARCH_X86_64";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &str = "SCMP_ARCH_AARCH64 SCMP_ARCH_ARM";

const FILTER_FLAGS: &str = "
    SECCOMP_FILTER_FLAG_LOG SECCOMP_FILTER_FLAG_SPEC_ALLOW SECCOMP_FILTER_FLAG_TSYNC
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
";

const MEMORY_POLICIES: &str = "
    MPOL_BIND MPOL_DEFAULT MPOL_INTERLEAVE MPOL_LOCAL MPOL_PREFERRED MPOL_PREFERRED_MANY
    MPOL_WEIGHTED_INTERLEAVE
";

const MEMORY_FLAGS: &str = "MPOL_F_NUMA_BALANCING MPOL_F_RELATIVE_NODES MPOL_F_STATIC_NODES";

/// The runtime specification's `features.md` document.
pub fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": HOOKS,
        "mountOptions": words(MOUNT_OPTIONS),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": &capability::NAMES[..],
            "cgroup": { "v1": true, "v2": true, "systemd": false, "rdma": true },
            "seccomp": seccomp(),
            // Where the kernel has them.
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": false },
            "memoryPolicy": { "modes": words(MEMORY_POLICIES), "flags": words(MEMORY_FLAGS) },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
    })
}

fn seccomp() -> Value {
    json!({
        "enabled": true,
        "actions": words(ACTIONS),
        "operators": words(OPERATORS),
        "archs": words(ARCHITECTURES),
        "knownFlags": words(FILTER_FLAGS),
        "supportedFlags": words(FILTER_FLAGS),
    })
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}
