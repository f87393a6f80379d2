//! `linux.seccomp`, `linux.maskedPaths` and `linux.readonlyPaths`.

use std::fs;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::rig::{Rig, on_both, on_ours, receive};

fn filter(rig: &mut Rig, syscalls: Value) {
    rig.spec["linux"]["seccomp"] =
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls });
}

/// config-linux.md, "Seccomp": `SCMP_ACT_ERRNO` with `errnoRet`, by default EPERM.
#[test]
fn calls_fail_as_told() {
    on_both(|rig| {
        filter(rig, json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]));
        rig.run(&["mkdir", "/x"]).exited(1).complains("Operation not permitted");
        filter(
            rig,
            json!([
                { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 },
            ]),
        );
        rig.run(&["mkdir", "/x"]).exited(1).complains("No space left on device");
        assert_eq!(rig.sh("grep ^Seccomp: /proc/self/status | cut -f2"), "2");
    });
}

/// config-linux.md, "Seccomp": `args` are conditions that must all hold.
#[test]
fn arguments_are_compared() {
    on_both(|rig| {
        let condition = |op: &str| json!({ "index": 1, "value": 0o700, "op": op });
        filter(
            rig,
            json!([{
                "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [condition("SCMP_CMP_EQ")],
            }]),
        );
        rig.run(&["mkdir", "-m", "700", "/a"]);
        let made = |rig: &Rig, name: &str| rig.root().join(name).is_dir();
        rig.sh("mkdir /b");
        assert!(made(rig, "b"));
    });
}

/// config-linux.md, "Seccomp": `SCMP_ACT_KILL` ends the process with SIGSYS.
#[test]
fn calls_kill() {
    on_both(|rig| {
        rig.namespace("pid", None);
        filter(rig, json!([{ "names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS" }]));
        rig.run(&["mkdir", "/x"]).exited(128 + 31);
    });
}

/// config-linux.md, "Seccomp": with a default action that refuses, what is named is allowed.
#[test]
fn a_default_that_refuses() {
    on_both(|rig| {
        filter(rig, json!([]));
        rig.spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "syscalls": [{ "action": "SCMP_ACT_ALLOW", "names": [
                "access", "arch_prctl", "brk", "chdir", "clone", "epoll_create1", "eventfd2", "faccessat2",
                "fchown", "getcwd", "getegid", "geteuid", "getgid", "pipe2", "statfs", "setresgid",
                "setresuid", "statx", "umask", "wait4", "capget", "capset", "close", "close_range", "dup",
                "dup2", "dup3", "epoll_ctl", "epoll_pwait", "execve", "exit", "exit_group",
                "fchdir", "fcntl", "fstat", "fstatfs", "futex", "getdents64", "getpid", "getppid",
                "getrandom", "getrlimit", "gettid", "getuid", "madvise", "mmap", "mprotect",
                "munmap", "nanosleep", "newfstatat", "open", "openat", "prctl", "pread64",
                "prlimit64", "read", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rseq",
                "sched_yield", "set_robust_list", "set_tid_address", "setgid", "setgroups",
                "setuid", "sigaltstack", "stat", "tgkill", "uname", "write", "writev",
            ] }],
        });
        assert_eq!(rig.run(&["echo", "fine"]).success().line(), "fine");
        rig.run(&["mkdir", "/x"]).complains("Function not implemented");
    });
}

/// config-linux.md, "Seccomp": an action that is none is an error.
#[test]
fn unknown_actions_are_refused() {
    on_both(|rig| {
        filter(rig, json!([{ "names": ["mkdir"], "action": "SCMP_ACT_DANCE" }]));
        assert_ne!(rig.create(&["true"]).code, 0);
    });
}

/// config-linux.md, "Seccomp": `SCMP_ACT_NOTIFY` asks an agent, which gets the listener with a
/// container process state through `listenerPath`.
#[test]
fn an_agent_is_asked() {
    on_both(|rig| {
        let path = rig.bundle().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        filter(rig, json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]));
        rig.spec["linux"]["seccomp"]["listenerPath"] = json!(path);
        rig.spec["linux"]["seccomp"]["listenerMetadata"] = json!("metadata");
        let agent = std::thread::spawn(move || {
            let (connection, _) = listener.accept().unwrap();
            let (bytes, descriptor) = receive(&connection);
            // Who asks is then told that there is no such call.
            drop(descriptor);
            serde_json::from_slice::<Value>(&bytes).unwrap()
        });
        rig.run(&["mkdir", "/x"]).exited(1).complains("Function not implemented");
        let told = agent.join().unwrap();
        assert_eq!(told["fds"], json!(["seccompFd"]));
        assert_eq!(told["metadata"], "metadata");
        assert!(told["pid"].as_i64().unwrap() > 1, "{told}");
        assert_eq!(told["state"]["id"], json!(rig.id));
    });
    on_both(|rig| {
        filter(rig, json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]));
        assert_ne!(rig.run(&["true"]).code, 0, "there is no agent");
    });
}

/// config-linux.md, "Masked Paths": they can't be read.
#[test]
fn masked_paths_are_empty() {
    on_both(|rig| {
        fs::create_dir(rig.root().join("secrets")).unwrap();
        fs::write(rig.root().join("secrets/key"), "secret").unwrap();
        fs::write(rig.root().join("file"), "secret").unwrap();
        rig.spec["linux"]["maskedPaths"] = json!(["/secrets", "/file", "/proc/uptime", "/absent"]);
        assert_eq!(rig.sh("ls /secrets; cat /file; test -c /proc/uptime && echo null"), "null");
        rig.run(&["touch", "/secrets/new"]).complains("Read-only");
    });
}

/// config-linux.md, "Readonly Paths": they can't be written.
#[test]
fn readonly_paths_are_not_written() {
    on_both(|rig| {
        fs::create_dir(rig.root().join("data")).unwrap();
        rig.spec["linux"]["readonlyPaths"] = json!(["/data", "/proc/sys", "/absent"]);
        rig.run(&["touch", "/data/new"]).exited(1).complains("Read-only");
        rig.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]).complains("Read-only");
    });
}

/// config-linux.md, "Readonly Paths" and "Masked Paths": the root itself is made read-only; masked,
/// nothing would be left of it. The image's links may lead there too.
#[test]
fn the_root_is_a_path_too() {
    on_both(|rig| {
        std::os::unix::fs::symlink("/", rig.root().join("link")).unwrap();
        for path in ["/", "/link"] {
            rig.spec["linux"]["readonlyPaths"] = json!([path]);
            rig.run(&["touch", "/new"]).exited(1).complains("Read-only");
        }
    });
    on_ours("it covers the root for those who join only", |rig| {
        std::os::unix::fs::symlink("/", rig.root().join("link")).unwrap();
        for path in ["/", "/link"] {
            rig.spec["linux"]["maskedPaths"] = json!([path]);
            rig.create(&["true"]).exited(1).complains("linux.maskedPaths");
        }
    });
}
