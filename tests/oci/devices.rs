//! `linux.devices`, the default devices, and which may be used.

use serde_json::json;

use crate::rig::{on_both, on_ours};

/// config-linux.md, "Default Devices".
#[test]
fn the_default_devices_are_there() {
    on_both(|rig| {
        let line = "cd /dev; stat -c '%n %t %T %a' null zero full random urandom tty; \
                    for n in fd stdin stdout stderr ptmx; do readlink $n; done";
        let expected = "null 1 3 666\nzero 1 5 666\nfull 1 7 666\nrandom 1 8 666\n\
                        urandom 1 9 666\ntty 5 0 666\n/proc/self/fd\n/proc/self/fd/0\n\
                        /proc/self/fd/1\n/proc/self/fd/2\npts/ptmx";
        assert_eq!(rig.sh(line), expected);
        assert_eq!(
            rig.sh("dd if=/dev/zero bs=4 count=1 2>/dev/null | wc -c; echo x > /dev/null"),
            "4"
        );
    });
}

/// config-linux.md, "Devices": type, numbers, mode and owner.
#[test]
fn devices_are_made_as_told() {
    on_both(|rig| {
        rig.spec["linux"]["devices"] = json!([
            { "path": "/dev/one", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640,
              "uid": 7, "gid": 8 },
            { "path": "/dev/deep/two", "type": "b", "major": 7, "minor": 200 },
            { "path": "/dev/pipe", "type": "p", "fileMode": 0o600 },
        ]);
        let line = "stat -c '%F %t %T %a %u %g' /dev/one /dev/deep/two /dev/pipe";
        let expected = "character special file 1 3 640 7 8\nblock special file 7 c8 666 0 0\n\
                        fifo 0 0 600 0 0";
        assert_eq!(rig.sh(line), expected);
    });
}

/// config-linux.md, "Default Devices": the spec may have one of them otherwise.
#[test]
fn a_default_device_is_as_told() {
    on_both(|rig| {
        rig.spec["linux"]["devices"] = json!([
            { "path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600,
              "uid": 7, "gid": 8 },
            { "path": "/dev/random", "type": "c", "major": 1, "minor": 9 },
        ]);
        let line = "stat -c '%t %T %a %u %g' /dev/full /dev/random";
        assert_eq!(rig.sh(line), "1 7 600 7 8\n1 9 666 0 0");
    });
}

/// config-linux.md, "Devices": something else at the path is an error, the device itself is none.
#[test]
fn nothing_else_is_taken_for_a_device() {
    on_ours("it takes whatever is there", |rig| {
        std::fs::write(rig.root().join("etc/file"), "").unwrap();
        std::os::unix::fs::symlink("/dev/null", rig.root().join("etc/link")).unwrap();
        let device = |path: &str, minor: u32| json!({ "path": path, "type": "c", "major": 1, "minor": minor });
        for path in ["/etc/file", "/etc/link", "/etc"] {
            rig.spec["linux"]["devices"] = json!([device(path, 3)]);
            rig.create(&["true"]).exited(1).complains(path);
        }
        rig.spec["linux"]["devices"] = json!([device("/dev/x", 3), device("/dev/x", 5)]);
        rig.create(&["true"]).exited(1).complains("/dev/x");
        rig.spec["linux"]["devices"] = json!([device("/dev/x", 3), device("/dev/x", 3)]);
        assert_eq!(rig.sh("stat -c %t:%T /dev/x"), "1:3");
    });
}

/// config-linux.md, "Devices": a type that is none is an error.
#[test]
fn devices_that_can_not_be_are_refused() {
    on_both(|rig| {
        rig.spec["linux"]["devices"] = json!([{ "path": "/dev/x", "type": "q" }]);
        assert_ne!(rig.create(&["true"]).code, 0);
    });
}

/// config-linux.md, "Allowed Device list": the last entry that matches decides.
#[test]
fn only_allowed_devices_can_be_opened() {
    on_both(|rig| {
        let open = "mknod /tmp/kmsg c 1 11; (: > /tmp/kmsg) 2>/dev/null && echo written; \
                    (: < /tmp/kmsg) 2>/dev/null && echo read; rm /tmp/kmsg";
        let capabilities = &mut rig.spec["process"]["capabilities"];
        for set in ["bounding", "permitted", "effective"] {
            capabilities[set].as_array_mut().unwrap().push(json!("CAP_SYSLOG"));
        }
        assert_eq!(rig.sh(open), "");
        let rule = |allow: bool, access: &str| json!({ "allow": allow, "type": "c", "major": 1, "minor": 11, "access": access });
        let none = json!({ "allow": false, "access": "rwm" });
        rig.spec["linux"]["resources"]["devices"] = json!([none, rule(true, "rwm")]);
        assert_eq!(rig.sh(open), "written\nread");
        let devices = json!([none, rule(true, "rwm"), rule(false, "w")]);
        rig.spec["linux"]["resources"]["devices"] = devices;
        assert_eq!(rig.sh(open), "read");
    });
}
