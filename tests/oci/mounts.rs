//! `mounts`.

use std::fs;

use serde_json::json;

use crate::rig::{on_both, on_both_since, on_ours};

/// config.md, "Mounts": mounted in the listed order.
#[test]
fn mounts_come_in_their_order() {
    on_both(|rig| {
        for name in ["one", "two"] {
            fs::create_dir(rig.bundle().join(name)).unwrap();
            fs::write(rig.bundle().join(name).join("name"), name).unwrap();
            rig.bind(&rig.bundle().join(name), "/data", &["bind"]);
        }
        assert_eq!(rig.sh("cat /data/name"), "two");
    });
}

/// config.md, "Mounts": a bind mount's source is a file or directory, and a missing destination is
/// made.
#[test]
fn files_and_directories_are_bound() {
    on_both(|rig| {
        let (file, directory) = (rig.bundle().join("file"), rig.bundle().join("directory"));
        fs::write(&file, "text").unwrap();
        fs::create_dir(&directory).unwrap();
        rig.bind(&file, "/some/where/file", &["bind"]);
        rig.bind(&directory, "/some/where/else", &["bind"]);
        assert_eq!(rig.sh("cat /some/where/file; echo out > /some/where/else/out"), "text");
        assert_eq!(fs::read_to_string(directory.join("out")).unwrap(), "out\n");
    });
}

/// config.md, "Mounts": relative sources are relative to the bundle.
#[test]
fn a_source_is_relative_to_the_bundle() {
    on_both(|rig| {
        fs::write(rig.bundle().join("beside"), "text").unwrap();
        rig.bind("beside".as_ref(), "/beside", &["bind"]);
        assert_eq!(rig.sh("cat /beside"), "text");
    });
}

/// config.md, "Mounts": a source that isn't there is an error.
#[test]
fn a_missing_source_is_refused() {
    on_both(|rig| {
        rig.bind(&rig.bundle().join("nothing"), "/data", &["bind"]);
        rig.create(&["true"]).exited(1).complains("o such file or directory");
    });
}

/// config.md, "Linux mount options": `ro`, `noexec`, `nosuid`, `nodev` and the like.
#[test]
fn options_are_attributes_of_the_mount() {
    on_both(|rig| {
        let source = rig.bundle().join("source");
        fs::create_dir(&source).unwrap();
        rig.bind(&source, "/a", &["bind", "ro", "nosuid", "nodev", "noexec", "noatime"]);
        rig.bind(&source, "/b", &["rbind", "rw", "nodiratime"]);
        let table = rig.sh("awk '$5 == \"/a\" || $5 == \"/b\" { print $6 }' /proc/self/mountinfo");
        let lines: Vec<&str> = table.lines().collect();
        for option in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
            assert!(lines[0].split(',').any(|word| word == option), "{option}: {table}");
        }
        assert!(lines[1].starts_with("rw"), "{table}");
        assert!(!lines[1].contains("nosuid") && lines[1].contains("nodiratime"), "{table}");
    });
}

/// config.md, "Linux mount options": `ro` is for one mount, `rro` for those below it too.
#[test]
fn recursive_options_reach_the_mounts_below() {
    on_both(|rig| {
        let source = rig.bundle().join("source");
        fs::create_dir_all(source.join("below")).unwrap();
        rig.bind(&source, "/plain", &["rbind"]);
        rig.add_mount(json!({ "destination": "/plain/below", "type": "tmpfs", "source": "tmpfs" }));
        let table = "awk '$5 ~ /^\\/(plain|again)/ { print $5, substr($6, 1, 2) }' \
                     /proc/self/mountinfo";
        assert!(rig.sh(table).contains("/plain/below rw"));
    });
    on_both(|rig| {
        rig.bind("/dev".as_ref(), "/mnt", &["rbind", "rro", "nosuid"]);
        let table = rig.sh("awk '$5 ~ /^\\/mnt/ { print substr($6, 1, 2) }' /proc/self/mountinfo");
        assert!(table.lines().count() > 1 && table.lines().all(|line| line == "ro"), "{table}");
    });
}

/// config.md, "Mounts": options that are no flags are the filesystem's.
#[test]
fn data_goes_to_the_filesystem() {
    on_both(|rig| {
        rig.add_mount(json!({
            "destination": "/small", "type": "tmpfs", "source": "tmpfs",
            "options": ["size=64k", "mode=0710", "nosuid"],
        }));
        assert_eq!(rig.sh("stat -c %a /small"), "710");
        let refused = rig.run(&["dd", "if=/dev/zero", "of=/small/file", "bs=1k", "count=65"]);
        refused.exited(1).complains("No space left on device");
    });
}

/// config.md, "Mounts": an option that the filesystem doesn't know is an error.
#[test]
fn an_unknown_option_is_refused() {
    on_both(|rig| {
        rig.add_mount(json!({
            "destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["sideways"],
        }));
        assert_ne!(rig.create(&["true"]).code, 0);
    });
}

/// config.md, "Linux mount options": `[r]shared`, `[r]slave`, `[r]private`.
#[test]
fn propagation_is_as_told() {
    on_both(|rig| {
        for (word, mark) in [("rshared", "shared:"), ("rprivate", "")] {
            rig.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "bind");
            let source = rig.bundle().join(word);
            fs::create_dir(&source).unwrap();
            rig.bind(&source, "/data", &["rbind", word]);
            let line = rig.sh("grep ' /data ' /proc/self/mountinfo");
            match mark {
                "" => assert!(!line.contains("shared:") && !line.contains("master:"), "{line}"),
                mark => assert!(line.contains(mark), "{line}"),
            }
        }
    });
}

/// config.md, "Mounts": a link on the way to the destination leads to a place in the root.
#[test]
fn links_do_not_lead_out_of_the_root() {
    on_both(|rig| {
        let outside = rig.bundle().join("outside");
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, rig.root().join("link")).unwrap();
        rig.bind("/etc".as_ref(), "/link/inner", &["bind", "ro"]);
        rig.run(&["true"]);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    });
}

/// config.md, "Linux mount options": `tmpcopyup` fills a tmpfs with what it covers.
#[test]
fn a_tmpfs_is_filled_with_what_it_covers() {
    on_both(|rig| {
        fs::create_dir_all(rig.root().join("data/deep")).unwrap();
        fs::write(rig.root().join("data/deep/file"), "text").unwrap();
        fs::write(rig.root().join("data/plain"), "other").unwrap();
        std::os::unix::fs::symlink("plain", rig.root().join("data/link")).unwrap();
        std::os::unix::fs::chown(rig.root().join("data/plain"), Some(5), Some(6)).unwrap();
        rig.add_mount(json!({
            "destination": "/data", "type": "tmpfs", "source": "tmpfs",
            "options": ["tmpcopyup", "mode=0750"],
        }));
        let line = "cat /data/deep/file /data/link; stat -c ' %u %g' /data/plain; rm -rf /data/*";
        assert_eq!(
            rig.sh(&line.replace("rm -rf /data/*", "echo new > /data/plain")),
            "textother 5 6"
        );
        assert_eq!(fs::read_to_string(rig.root().join("data/plain")).unwrap(), "other");
    });
}

/// config-linux.md, "Memory": what a tmpfs is filled with is the container's memory, within its
/// limit: an image must not fill the host's.
#[test]
fn what_a_tmpfs_is_filled_with_counts() {
    on_both(|rig| {
        fs::create_dir(rig.root().join("data")).unwrap();
        fs::write(rig.root().join("data/large"), vec![1; 64 << 20]).unwrap();
        rig.add_mount(json!({
            "destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"],
        }));
        rig.spec["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
        rig.create(&["true"]).exited(1).complains("memory");
    });
}

/// config.md, "Linux mount options": flags of `mount(2)` that are no options of most filesystems.
#[test]
fn flags_that_filesystems_lack_are_accepted() {
    on_both(|rig| {
        let options = ["acl", "iversion", "loud", "noacl", "noiversion", "silent"];
        rig.add_mount(json!({
            "destination": "/new", "type": "tmpfs", "source": "t", "options": options,
        }));
        rig.bind("/tmp".as_ref(), "/bound", &[&["bind"][..], &options].concat());
        assert_eq!(rig.sh("grep -c -E ' /(new|bound) ' /proc/self/mountinfo"), "2");
    });
}

/// runc: of what is in `/proc`, a few files may be replaced.
#[test]
fn files_of_proc_are_replaced() {
    on_both(|rig| {
        let file = rig.bundle().join("file");
        fs::write(&file, "replaced").unwrap();
        for name in ["/proc/meminfo", "/proc/stat", "/proc/sys/kernel/ns_last_pid"] {
            rig.bind(&file, name, &["bind", "ro"]);
        }
        let line = "cat /proc/meminfo /proc/stat /proc/sys/kernel/ns_last_pid";
        assert_eq!(rig.sh(line), "replaced".repeat(3));
    });
}

/// config.md, "Mounts": `uidMappings` and `gidMappings` of a mount map the owners of its files.
#[test]
fn owners_are_mapped() {
    let mount = |rig: &mut crate::rig::Rig, option: &str| {
        let source = rig.bundle().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "").unwrap();
        std::os::unix::fs::chown(source.join("file"), Some(1000), Some(1001)).unwrap();
        let map = |container: u32, host: u32| json!([{ "containerID": container, "hostID": host, "size": 10 }]);
        rig.add_mount(json!({
            "destination": "/data", "type": "bind", "source": source, "options": ["rbind", option],
            "uidMappings": map(1000, 2000), "gidMappings": map(1000, 3000),
        }));
        assert_eq!(rig.sh("stat -c '%u %g' /data/file"), "2000 3001");
    };
    on_both_since((1, 2), |rig| mount(rig, "idmap"));
    on_ours("1.1 has no recursive mapping", |rig| mount(rig, "ridmap"));
}

/// config-linux.md, "Default Filesystems": a container should have them; a procfs belongs to its
/// pidns.
#[test]
fn proc_is_the_containers() {
    on_both(|rig| {
        assert_eq!(rig.sh("read name < /proc/1/comm; echo $name").lines().last(), Some("sh"));
    });
}

/// config-linux.md, "Control groups": a mount of type `cgroup` shows the container its own.
#[test]
fn a_mount_of_cgroups_shows_the_containers_own() {
    on_both(|rig| {
        rig.add_mount(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        }));
        rig.spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
        if std::path::Path::new("/sys/fs/cgroup/memory").exists() {
            let limit = rig.sh("cat /sys/fs/cgroup/memory/memory.limit_in_bytes");
            assert_eq!(limit, (64 << 20).to_string());
            rig.run(&["mkdir", "/sys/fs/cgroup/memory/x"]).complains("Read-only");
        } else {
            assert_eq!(rig.sh("cat /sys/fs/cgroup/memory.max"), (64 << 20).to_string());
        }
    });
}
