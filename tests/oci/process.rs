//! `process` but for rights and limits: the program, its user and its streams.

use std::fs;

use serde_json::json;

use crate::rig::{on_both, on_both_since, on_ours};

/// config.md, "Process": `args` has the same semantics as execvp's.
#[test]
fn arguments_and_environment_arrive() {
    on_both(|rig| {
        let env = json!(["PATH=/nowhere:/bin", "A=1", "B=two words"]);
        rig.spec["process"]["env"] = env;
        let output = rig.run(&["sh", "-c", "echo \"$0|$1|$A|$B\"", "zero", "one  1"]).success();
        assert_eq!(output.line(), "zero|one  1|1|two words");
    });
}

/// config.md, "Process": a program that can't be found or run is an error, in words that engines
/// derive the statuses 127 and 126 from.
#[test]
fn a_missing_program_is_told_at_creation() {
    on_both(|rig| {
        rig.create(&["nothing-like-it"]).exited(1).complains("executable file not found in $PATH");
        rig.create(&["/nothing"]).exited(1).complains("no such file or directory");
        rig.create(&["/etc"]).exited(1);
        fs::write(rig.root().join("text"), "text").unwrap();
        rig.create(&["/text"]).exited(1).complains("permission denied");
    });
}

/// config.md, "Process": `cwd` is the working directory, an absolute path.
#[test]
fn the_working_directory() {
    on_both(|rig| {
        rig.spec["process"]["cwd"] = json!("/tmp");
        assert_eq!(rig.sh("pwd"), "/tmp");
        rig.spec["process"]["cwd"] = json!("/made/by/the/runtime");
        assert_eq!(rig.sh("pwd"), "/made/by/the/runtime");
        rig.spec["process"]["cwd"] = json!("tmp");
        assert_ne!(rig.run(&["true"]).code, 0);
    });
}

/// config.md, "POSIX-platform User": uid, gid, additional groups and umask.
#[test]
fn the_user() {
    on_both(|rig| {
        rig.spec["process"]["user"] =
            json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o027 });
        let groups = rig.sh("id -u; id -g; id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '; umask");
        let lines: Vec<&str> = groups.lines().collect();
        assert_eq!(lines[..2], ["1000", "1001"]);
        assert!(lines[2].contains("5 6"), "{groups}");
        assert!(lines[2].ends_with("0027"), "{groups}");
    });
}

/// config.md, "Linux Process": `noNewPrivileges` prevents the process from gaining privileges.
#[test]
fn no_new_privileges() {
    on_both(|rig| {
        let line = "grep NoNewPrivs /proc/self/status | cut -f2";
        assert_eq!(rig.sh(line), "0");
        rig.spec["process"]["noNewPrivileges"] = json!(true);
        assert_eq!(rig.sh(line), "1");
    });
}

/// config.md, "Linux Process": `oomScoreAdj` is the process's `oom_score_adj`.
#[test]
fn the_oom_score() {
    on_both(|rig| {
        rig.spec["process"]["oomScoreAdj"] = json!(731);
        assert_eq!(rig.sh("cat /proc/self/oom_score_adj"), "731");
    });
}

/// config.md, "Linux Process": `scheduler`.
#[test]
fn the_scheduler() {
    on_both_since((1, 2), |rig| {
        rig.spec["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
        // Fields 19 and 41 of proc_pid_stat(5), without the two before the program's name.
        assert_eq!(rig.sh("cut -d' ' -f19,41 /proc/self/stat"), "7 3");
    });
    on_both_since((1, 2), |rig| {
        rig.spec["process"]["scheduler"] = json!({ "policy": "SCHED_GUESS" });
        assert_ne!(rig.create(&["true"]).code, 0);
    });
}

/// config.md, "Linux Process": `ioPriority`.
#[test]
fn the_io_priority() {
    on_both_since((1, 2), |rig| {
        rig.spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
        let priority = rig.sh("busybox ionice");
        assert_eq!(priority, "best-effort: prio 6");
    });
}

/// config-linux.md, "Personality".
#[test]
fn the_personality() {
    on_both_since((1, 2), |rig| {
        rig.spec["linux"]["personality"] = json!({ "domain": "LINUX32" });
        assert_ne!(rig.sh("uname -m"), "x86_64");
        rig.spec["linux"]["personality"] = json!({ "domain": "LINUX" });
        rig.sh("uname -m");
        rig.spec["linux"]["personality"] = json!({ "domain": "WINDOWS" });
        assert_ne!(rig.create(&["true"]).code, 0);
    });
}

/// config.md, "Linux Process": `execCPUAffinity` is where an exec runs, at first and then.
#[test]
fn the_processors_of_an_exec() {
    on_both_since((1, 3), |rig| {
        rig.spec["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
        rig.with_sleeper(|rig| {
            let allowed = rig.exec("grep Cpus_allowed_list /proc/self/status | cut -f2");
            assert_eq!(allowed, "0");
        });
    });
}

/// config-linux.md, "Memory Policy".
#[test]
fn the_memory_policy() {
    on_ours("1.1 has no memory policy", |rig| {
        rig.spec["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" });
        let maps = rig.sh("head -n1 /proc/self/numa_maps");
        assert!(maps.contains(" interleave:0 "), "{maps}");
        rig.spec["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_ELSEWHERE" });
        rig.create(&["true"]).exited(1).complains("linux.memoryPolicy");
    });
}
