//! User namespaces: `linux.uidMappings` and `linux.gidMappings`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use serde_json::{Value, json};

use crate::rig::{Rig, on_both, on_both_since};

const FIRST: u32 = 100_000;

/// A user namespace whose root is an ordinary user of the host.
fn mapped(rig: &mut Rig) {
    let map = json!([{ "containerID": 0, "hostID": FIRST, "size": 65_536 }]);
    rig.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    rig.spec["linux"]["uidMappings"] = map.clone();
    rig.spec["linux"]["gidMappings"] = map;
    // Whoever knows the way may pass.
    fs::set_permissions(rig.bundle(), fs::Permissions::from_mode(0o711)).unwrap();
    for path in [rig.root(), rig.root().join("tmp"), rig.root().join("dev")] {
        chown(path, Some(FIRST), Some(FIRST)).unwrap();
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// config-linux.md, "User namespace mappings".
#[test]
fn ids_are_mapped() {
    on_both(|rig| {
        mapped(rig);
        let shown = rig.sh("cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /tmp/file");
        assert_eq!(words(&shown), ["0", "100000", "65536", "0", "100000", "65536", "0"]);
        assert_eq!(fs::metadata(rig.root().join("tmp/file")).unwrap().uid(), FIRST);
        assert_eq!(rig.sh("echo x > /dev/null && echo yes"), "yes");
    });
}

/// config.md, "POSIX-platform User": ids are those inside of the user namespace.
#[test]
fn users_are_those_inside() {
    on_both(|rig| {
        mapped(rig);
        rig.spec["process"]["user"] = json!({ "uid": 5, "gid": 6 });
        fs::set_permissions(rig.root().join("tmp"), fs::Permissions::from_mode(0o777)).unwrap();
        rig.sh("touch /tmp/five");
        let data = fs::metadata(rig.root().join("tmp/five")).unwrap();
        assert_eq!((data.uid(), data.gid()), (FIRST + 5, FIRST + 6));
    });
}

/// config-linux.md, "User namespace mappings": without mappings, and with some that overlap, there
/// can be no namespace.
#[test]
fn wrong_mappings_are_refused() {
    on_both(|rig| {
        mapped(rig);
        let range = |first: u32| json!({ "containerID": first, "hostID": FIRST, "size": 10 });
        let bad: [Value; 2] = [json!([]), json!([range(0), range(5)])];
        for map in bad {
            rig.spec["linux"]["uidMappings"] = map;
            assert_ne!(rig.create(&["true"]).code, 0);
        }
    });
}

/// config-linux.md, "Namespaces": a user namespace may be joined by its path.
#[test]
fn a_user_namespace_is_joined() {
    on_both_since((1, 2), |pod| {
        let runtime = pod.runtime;
        mapped(pod);
        pod.with_sleeper(|pod| {
            let pid = pod.state()["pid"].clone();
            let mut rig = Rig::new(runtime);
            mapped(&mut rig);
            rig.namespace("user", Some(&format!("/proc/{pid}/ns/user")));
            for field in ["uidMappings", "gidMappings"] {
                rig.spec["linux"].as_object_mut().unwrap().remove(field);
            }
            let shown = rig.sh("readlink /proc/self/ns/user; cat /proc/self/uid_map; id -u");
            let theirs = fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
            let expected = [theirs.to_str().unwrap(), "0", "100000", "65536", "0"];
            assert_eq!(words(&shown), expected);
            rig.assert_nothing_left();
        });
    });
}

/// runc's manual: `exec` enters the user namespace too.
#[test]
fn exec_enters_the_user_namespace() {
    on_both(|rig| {
        mapped(rig);
        rig.with_sleeper(|rig| {
            assert_eq!(words(&rig.exec("cat /proc/self/uid_map")), ["0", "100000", "65536"]);
        });
    });
}
