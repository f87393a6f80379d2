//! What a container sees of files, and what it may change.

use std::fs;

use berth_types::spec::{Device, Mount};

use crate::rig::Rig;

crate::cases![
    the_usual_mounts_are_there,
    masked_paths_are_empty,
    read_only_paths_are_read_only,
    a_read_only_root_is_read_only,
    binds_are_seen_and_may_be_read_only,
    recursive_read_only_reaches_mounts_below,
    a_file_is_bound_on_a_missing_file,
    the_usual_devices_work,
    devices_of_the_spec_are_made,
    other_devices_are_denied,
    cgroups_are_shown_read_only,
    sysctls_are_set,
    a_missing_working_directory_is_made,
    a_tmpfs_keeps_the_mode_of_its_place,
    unmounting_reveals_nothing_of_the_host,
    propagation_of_a_bind,
];

fn the_usual_mounts_are_there() {
    let output = Rig::new().sh("mount");
    for line in [
        "proc on /proc type proc (rw,nosuid,nodev,noexec,relatime)",
        "tmpfs on /dev type tmpfs (rw,nosuid",
        "devpts on /dev/pts type devpts (rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666)",
        "mqueue on /dev/mqueue type mqueue (rw,nosuid,nodev,noexec,relatime)",
        "sysfs on /sys type sysfs (ro,nosuid,nodev,noexec,relatime)",
    ] {
        assert!(output.text().contains(line), "{line} is not in {output:?}");
    }
}

fn masked_paths_are_empty() {
    let mut rig = Rig::new();
    rig.linux().masked_paths =
        vec!["/proc/keys".into(), "/etc".into(), "/sys/firmware".into(), "/none".into()];
    fs::write(rig.root().join("secret"), "s").unwrap();
    rig.linux().masked_paths.push("/secret".into());
    let output =
        rig.sh("wc -c < /proc/keys; wc -c < /secret; ls -A /etc /sys/firmware; touch /etc/x");
    assert_eq!(output.stdout, "0\n0\n/etc:\n\n/sys/firmware:\n");
    assert!(output.stderr.contains("Read-only"), "{output:?}");
    // The null device over a file is the host's.
    let output =
        rig.sh("chmod 666 /secret; chown 0:0 /secret; touch /secret; echo x > /secret && echo y");
    assert_eq!(output.text(), "y");
    assert_eq!(output.stderr.matches("Read-only file system").count(), 3, "{output:?}");
}

fn read_only_paths_are_read_only() {
    let output =
        Rig::new().sh("echo 1 > /proc/sys/kernel/pid_max || echo 1 > /proc/sys/vm/drop_caches");
    assert_ne!(output.status, Some(0));
    assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output:?}");
}

fn a_read_only_root_is_read_only() {
    let mut rig = Rig::new();
    rig.spec.root.as_mut().unwrap().readonly = true;
    let output = rig.sh("touch /file; touch /dev/shm/fine && echo fine");
    assert_eq!(output.text(), "fine");
    assert!(output.stderr.contains("Read-only"));
}

fn binds_are_seen_and_may_be_read_only() {
    let mut rig = Rig::new();
    let host = rig.bundle().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "from the host").unwrap();
    rig.bind(&host, "/made/data", &["rbind", "rw"]);
    rig.bind(&host, "/locked", &["rbind", "ro", "noexec"]);
    let output = rig.sh("cat /made/data/file; echo more > /made/data/new; echo no > /locked/new");
    assert_eq!(output.stdout, "from the host");
    assert!(output.stderr.contains("Read-only"), "{output:?}");
    assert_eq!(fs::read_to_string(host.join("new")).unwrap(), "more\n");
}

fn recursive_read_only_reaches_mounts_below() {
    for (option, succeeds) in [("ro", true), ("rro", false)] {
        let mut rig = Rig::new();
        let outer = rig.bundle().join("outer");
        fs::create_dir_all(outer.join("inner")).unwrap();
        // The first bind's place has a mount below it, a copy of which the second one takes.
        let sub = rig.root().join("dev");
        assert!(sub.is_dir());
        rig.bind("/dev".as_ref(), "/host", &["rbind", option]);
        let output = rig.sh("touch /host/shm/berth-test-file && rm -f /host/shm/berth-test-file");
        let below = fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" /dev/shm ");
        if below {
            assert_eq!(output.status == Some(0), succeeds, "{option}: {output:?}");
            let _ = fs::remove_file("/dev/shm/berth-test-file");
        }
    }
}

fn a_file_is_bound_on_a_missing_file() {
    let mut rig = Rig::new();
    let file = rig.bundle().join("resolv.conf");
    fs::write(&file, "nameserver ::1\n").unwrap();
    rig.bind(&file, "/etc/network/resolv.conf", &["bind", "ro"]);
    assert_eq!(rig.run(&["cat", "/etc/network/resolv.conf"]).text(), "nameserver ::1");
}

fn the_usual_devices_work() {
    let line = "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c; \
                for d in null zero full random urandom tty; do stat -c '%n %a %t:%T' /dev/$d; done; \
                for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done";
    let expected = "3\n3\n/dev/null 666 1:3\n/dev/zero 666 1:5\n/dev/full 666 1:7\n\
                    /dev/random 666 1:8\n/dev/urandom 666 1:9\n/dev/tty 666 5:0\n\
                    /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx";
    assert_eq!(Rig::new().sh(line).text(), expected);
}

fn devices_of_the_spec_are_made() {
    let mut rig = Rig::new();
    rig.linux().devices = vec![Device {
        path: "/dev/sub/fuse".into(),
        kind: "c".into(),
        major: 10,
        minor: 229,
        file_mode: Some(0o640),
        uid: Some(3),
        gid: Some(4),
    }];
    let output = rig.sh("stat -c '%F %a %u:%g %t:%T' /dev/sub/fuse");
    assert_eq!(output.text(), "character special file 640 3:4 a:e5");
}

fn other_devices_are_denied() {
    let mut rig = Rig::new();
    let (path, kind) = ("/dev/kmsg".to_owned(), "c".to_owned());
    rig.linux().devices = vec![Device { path, kind, major: 1, minor: 11, ..Device::default() }];
    let output = rig.sh("head -c 1 /dev/kmsg");
    assert!(output.stderr.contains("Operation not permitted"), "{output:?}");
}

fn cgroups_are_shown_read_only() {
    let line =
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/below; done; ls -R /sys/fs/cgroup";
    let output = Rig::new().sh(line);
    assert!(output.stdout.contains("memory"), "{output:?}");
    assert!(output.stderr.contains("Read-only file system"), "{output:?}");
    assert!(!output.stdout.contains("below"), "{output:?}");
    assert!(!output.stdout.contains("berth-rig"), "the host's groups are seen: {output:?}");
}

fn sysctls_are_set() {
    let mut rig = Rig::new();
    rig.linux().sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "7".into());
    rig.linux().sysctl.insert("kernel.shm_rmid_forced".into(), "1".into());
    let line = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    assert_eq!(rig.sh(line).text(), "7\n1");
}

fn a_missing_working_directory_is_made() {
    let mut rig = Rig::new();
    rig.process().cwd = "/srv/new/place".into();
    assert_eq!(rig.run(&["pwd"]).text(), "/srv/new/place");
}

fn a_tmpfs_keeps_the_mode_of_its_place() {
    use std::os::unix::fs::PermissionsExt;
    let mut rig = Rig::new();
    let mode = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(rig.root().join("tmp"), mode).unwrap();
    for destination in ["/tmp", "/new"] {
        rig.spec.mounts.push(Mount {
            destination: destination.into(),
            kind: Some("tmpfs".into()),
            ..Mount::default()
        });
    }
    assert_eq!(rig.sh("stat -c %a /tmp /new").text(), "1777\n1777");
}

fn unmounting_reveals_nothing_of_the_host() {
    let mut rig = Rig::new();
    let all = ["CAP_SYS_ADMIN".to_owned()];
    let capabilities = rig.process().capabilities.as_mut().unwrap();
    for set in
        [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted]
    {
        set.extend(all.clone());
    }
    let output = rig.sh("umount -l /; ls /; cat /proc/self/mountinfo | wc -l; ls /proc/1/root");
    assert!(!output.stdout.contains("work"), "{output:?}");
    let lines = Rig::new().sh("cat /proc/self/mountinfo");
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = host.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    let id = root.split(' ').next().unwrap();
    assert!(!lines.text().lines().any(|line| line.starts_with(&format!("{id} "))));
}

fn propagation_of_a_bind() {
    let mut rig = Rig::new();
    let host = rig.bundle().join("host");
    fs::create_dir(&host).unwrap();
    rig.bind(&host, "/shared", &["rbind", "rshared"]);
    rig.bind(&host, "/private", &["rbind", "rprivate"]);
    let output = rig.sh("cat /proc/self/mountinfo");
    let of = |place: &str| {
        output.text().lines().find(|line| line.contains(place)).map(str::to_owned).unwrap()
    };
    assert!(of(" /shared ").contains("shared:"));
    assert!(!of(" /private ").contains("shared:"));
}
