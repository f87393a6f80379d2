//! `process.capabilities` and `process.rlimits`.

use serde_json::{Value, json};

use crate::rig::{Rig, on_both, on_ours};

/// The sets of the container's process, as bits: inheritable, permitted, effective, bounding and
/// ambient.
fn sets(rig: &mut Rig) -> Vec<u64> {
    let lines = rig.sh("grep ^Cap /proc/self/status | cut -f2");
    lines.lines().map(|line| u64::from_str_radix(line, 16).unwrap()).collect()
}

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_BIND: u64 = 1 << 10;

fn capabilities(rig: &mut Rig, sets: Value) {
    rig.spec["process"]["capabilities"] = sets;
}

/// config.md, "Linux Process": each set of `capabilities` is the process's set of that name.
#[test]
fn each_set_is_as_told() {
    on_both(|rig| {
        let all = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
        capabilities(rig, json!({ "bounding": all, "permitted": all, "effective": all }));
        let set = CHOWN | KILL | NET_BIND;
        assert_eq!(sets(rig), [0, set, set, set, 0]);
        capabilities(rig, json!({ "bounding": ["CAP_KILL"] }));
        assert_eq!(sets(rig)[3], KILL);
        capabilities(rig, json!({}));
        assert_eq!(sets(rig), [0, 0, 0, 0, 0]);
    });
}

/// config.md, "Linux Process": ambient capabilities reach a user's process.
#[test]
fn ambient_capabilities_reach_users() {
    on_both(|rig| {
        rig.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        let bind = ["CAP_NET_BIND_SERVICE"];
        capabilities(
            rig,
            json!({
                "bounding": bind, "permitted": bind, "effective": bind, "inheritable": bind,
                "ambient": bind,
            }),
        );
        assert_eq!(sets(rig), [NET_BIND; 5]);
        capabilities(rig, json!({ "bounding": bind, "permitted": bind, "effective": bind }));
        assert_eq!(sets(rig), [0, 0, 0, NET_BIND, 0], "a user's program has none by itself");
    });
}

/// config.md, "Linux Process": a value that the kernel doesn't know is not an error, but a warning.
#[test]
fn unknown_capabilities_are_left_out() {
    on_both(|rig| {
        let some = ["CAP_KILL", "CAP_FLY"];
        capabilities(rig, json!({ "bounding": some, "permitted": some, "effective": some }));
        let output = rig.run(&["grep", "CapEff", "/proc/self/status"]).success();
        assert!(output.stdout.trim().ends_with("0020"), "{output:?}");
        output.complains("CAP_FLY");
    });
}

/// config.md, "POSIX process": `rlimits` are the process's limits.
#[test]
fn limits_are_set() {
    on_both(|rig| {
        rig.spec["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_NPROC", "soft": 300, "hard": 400 },
        ]);
        assert_eq!(rig.sh("ulimit -Sn; ulimit -Hn; ulimit -Hc; grep -c 'Max processes *300 *400' /proc/self/limits"), "100\n200\n0\n1");
    });
}

/// config.md, "POSIX process": an unknown type is an error.
#[test]
fn limits_that_can_not_be_are_refused() {
    on_both(|rig| {
        rig.spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }]);
        assert_ne!(rig.create(&["true"]).code, 0);
        rig.spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 2, "hard": 1 }]);
        assert_ne!(rig.create(&["true"]).code, 0);
    });
}

/// config.md, "POSIX process": a type that is listed twice MUST be an error.
#[test]
fn limits_are_named_once() {
    on_ours("1.1 takes the last one", |rig| {
        let limit = json!({ "type": "RLIMIT_CORE", "soft": 1, "hard": 1 });
        rig.spec["process"]["rlimits"] = json!([limit, limit]);
        rig.create(&["true"]).exited(1).complains("process.rlimits");
    });
}
