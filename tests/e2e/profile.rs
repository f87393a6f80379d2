//! What a container may do by default is what containerd lets it do.

use std::collections::{BTreeMap, BTreeSet};

use berth_tests::{Engine, Flavor, Image};
use serde_json::Value;

const IMAGE: &str = "docker.io/library/busybox:latest";

/// System calls that containerd lets through since Debian's version: those that have come to Linux
/// since, and those that `ptrace` has made useless to refuse.
const SINCE: [&str; 18] = [
    "cachestat",
    "fchmodat2",
    "futex_requeue",
    "futex_wait",
    "futex_wake",
    "getxattrat",
    "listmount",
    "listxattrat",
    "map_shadow_stack",
    "mseal",
    "name_to_handle_at",
    "process_vm_readv",
    "process_vm_writev",
    "removexattrat",
    "riscv_hwprobe",
    "setxattrat",
    "statmount",
    "uretprobe",
];

/// And those that it refuses since.
const REFUSED_SINCE: [&str; 3] = ["io_uring_enter", "io_uring_register", "io_uring_setup"];

/// The specification of a container of the engine with its defaults.
fn spec(engine: &Engine) -> Value {
    engine.import(&Image::busybox(IMAGE));
    let id = match engine.flavor() {
        Flavor::Berth => engine.cli(&["create", IMAGE, "true"]).success().line().to_owned(),
        Flavor::Containerd => {
            engine.ctr(&["run", "-d", "--seccomp", IMAGE, "one", "true"]).success();
            "one".to_owned()
        }
    };
    let info = engine.ctr(&["containers", "info", &id]).success().stdout;
    serde_json::from_str::<Value>(&info).unwrap()["Spec"].take()
}

fn set(list: &Value) -> BTreeSet<String> {
    let words = list.as_array().into_iter().flatten();
    words.map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// What is done about each system call, in which case.
fn rules(spec: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut rules = BTreeMap::<_, BTreeSet<_>>::new();
    for rule in spec["linux"]["seccomp"]["syscalls"].as_array().unwrap() {
        for name in set(&rule["names"]) {
            let what = format!("{} {} {}", rule["action"], rule["errnoRet"], rule["args"]);
            rules.entry(name).or_default().insert(what);
        }
    }
    rules
}

#[test]
fn the_defaults_are_containerds() {
    let Some(berth) = Engine::berth() else { return };
    let containerd = Engine::start_flavor(Flavor::Containerd);
    let (ours, theirs) = (spec(&berth), spec(&containerd));

    for kind in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        let of = |spec: &Value| set(&spec["process"]["capabilities"][kind]);
        assert_eq!(of(&ours), of(&theirs), "{kind}");
    }
    let of = |spec: &Value| set(&spec["linux"]["readonlyPaths"]);
    assert_eq!(of(&ours), of(&theirs));
    let mut masked = set(&theirs["linux"]["maskedPaths"]);
    masked.insert("/sys/devices/virtual/powercap".to_owned());
    assert_eq!(set(&ours["linux"]["maskedPaths"]), masked);
    for key in ["defaultAction", "architectures"] {
        assert_eq!(ours["linux"]["seccomp"][key], theirs["linux"]["seccomp"][key]);
    }

    let (mut ours, mut theirs) = (rules(&ours), rules(&theirs));
    for name in SINCE {
        assert!(ours.remove(name).is_some() && !theirs.contains_key(name), "{name}");
    }
    for name in REFUSED_SINCE {
        assert!(theirs.remove(name).is_some(), "{name}");
    }
    // All kinds of socket there; here, as there since, all but two.
    assert_eq!(theirs.remove("socket").map(|rules| rules.len()), Some(1));
    assert_eq!(ours.remove("socket").map(|rules| rules.len()), Some(3));
    assert_eq!(ours, theirs);
}
