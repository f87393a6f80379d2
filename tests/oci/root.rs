//! `root` and `linux.rootfsPropagation`.

use std::fs;

use serde_json::json;

use crate::rig::{on_both, on_ours};

/// config.md, "Root": `path` is either an absolute path or a relative path to the bundle.
#[test]
fn the_path_is_relative_to_the_bundle_or_absolute() {
    on_both(|rig| {
        fs::write(rig.root().join("mark"), "here").unwrap();
        assert_eq!(rig.sh("cat /mark"), "here");
        rig.spec["root"]["path"] = json!(rig.root());
        assert_eq!(rig.sh("cat /mark"), "here");
    });
}

/// config.md, "Root": a directory MUST exist at the path.
#[test]
fn a_directory_must_be_there() {
    on_both(|rig| {
        rig.spec["root"]["path"] = json!("nowhere");
        assert_ne!(rig.run(&["true"]).code, 0);
    });
}

/// config.md, "Root": if `readonly` is true the root filesystem MUST be read-only inside the
/// container.
#[test]
fn a_read_only_root_can_not_be_written() {
    on_both(|rig| {
        assert_eq!(rig.sh("touch /file && echo yes"), "yes");
        rig.spec["root"]["readonly"] = json!(true);
        let refused = rig.run(&["touch", "/other"]);
        assert_ne!(refused.code, 0);
        refused.complains("Read-only file system");
        assert_eq!(rig.sh("touch /dev/shm/file && echo yes"), "yes", "other mounts are their own");
    });
}

/// config-linux.md, "Rootfs Mount Propagation": sets the rootfs's mount propagation.
#[test]
fn the_propagation_of_the_root_is_as_told() {
    let line = "awk '$5 == \"/\"' /proc/self/mountinfo";
    on_both(|rig| {
        for word in ["private", "rprivate"] {
            rig.spec["linux"]["rootfsPropagation"] = json!(word);
            let table = rig.sh(line);
            assert!(!table.contains("shared:") && !table.contains("master:"), "{word}: {table}");
        }
    });
    on_ours("1.1 fails on unbindable", |rig| {
        rig.spec["linux"]["rootfsPropagation"] = json!("unbindable");
        let table = rig.sh(line);
        assert!(table.contains("unbindable"), "{table}");
    });
}

/// config-linux.md, "Rootfs Mount Propagation": `shared` and `slave`; what is mounted inside is not
/// seen outside of the root all the same.
#[test]
fn a_root_may_be_shared() {
    on_both(|rig| {
        for word in ["shared", "rshared", "slave", "rslave"] {
            rig.spec["linux"]["rootfsPropagation"] = json!(word);
            assert_eq!(rig.sh("echo fine"), "fine", "{word}");
        }
    });
    on_ours("1.1 makes it private", |rig| {
        rig.spec["linux"]["rootfsPropagation"] = json!("rshared");
        let table = rig.sh("grep -E ' (/|/proc|/dev/shm) ' /proc/self/mountinfo");
        assert!(table.lines().all(|line| line.contains(" shared:")), "{table}");
    });
}

/// config-linux.md, "Rootfs Mount Propagation": any other value is an error.
#[test]
fn an_unknown_propagation_is_refused() {
    on_both(|rig| {
        rig.spec["linux"]["rootfsPropagation"] = json!("sideways");
        assert_ne!(rig.run(&["true"]).code, 0);
    });
}
