//! A container's start and what it is born with.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use berth_types::spec::{IdMapping, Mount, Namespace, Process};

use crate::rig::{Rig, Streams, block_on, end, wait};

crate::cases![
    echo,
    the_exit_status_is_the_programs,
    namespaces_are_new,
    names_are_set,
    namespaces_are_joined_by_path,
    start_releases_the_program,
    a_parked_container_ends_with_the_shim,
    an_overlay_is_the_root,
    a_hundred_layers_are_the_root,
    the_environment_is_the_specs_and_home,
    loopback_is_up,
    a_new_user_namespace,
    layers_get_the_owners_of_a_user_namespace,
    an_opaque_directory_is_one_in_a_user_namespace,
];

fn echo() {
    assert_eq!(Rig::new().run(&["/bin/echo", "hello"]).text(), "hello");
}

fn the_exit_status_is_the_programs() {
    assert_eq!(Rig::new().sh("exit 42").status, Some(42));
    assert_eq!(Rig::new().sh("echo out; echo err >&2").stderr, "err\n");
}

fn namespaces_are_new() {
    let links = "for n in pid mnt net uts ipc cgroup; do readlink /proc/self/ns/$n; done; echo $$";
    let output = Rig::new().sh(links);
    let lines: Vec<&str> = output.text().lines().collect();
    for (line, name) in lines.iter().zip(["pid", "mnt", "net", "uts", "ipc", "cgroup"]) {
        let ours = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert!(line.starts_with(name), "{line}");
        assert_ne!(*line, ours.to_str().unwrap());
    }
    assert_eq!(lines[6], "1");
    let own = Rig::new().sh("cat /proc/self/cgroup");
    let memory = own.text().lines().find(|line| line.contains(":memory:")).map(str::to_owned);
    assert!(memory.is_none_or(|line| line.ends_with(":/")), "{own:?}");
}

fn names_are_set() {
    let mut rig = Rig::new();
    rig.spec.hostname = Some("box".into());
    rig.spec.domainname = Some("example.org".into());
    let output = rig.sh("hostname; cat /proc/sys/kernel/domainname");
    assert_eq!(output.text(), "box\nexample.org");
}

fn namespaces_are_joined_by_path() {
    let mut first = Rig::new();
    let joined = first.with_sleeper(async |pod| {
        let mut second = Rig::new();
        for namespace in &mut second.linux().namespaces {
            if let Some(file) = match namespace.kind.as_str() {
                "network" => Some("net"),
                "pid" => Some("pid"),
                "ipc" => Some("ipc"),
                _ => None,
            } {
                namespace.path = Some(format!("/proc/{}/ns/{file}", pod.init().pid));
            }
        }
        let streams = Streams::new();
        let line =
            "for n in pid net ipc uts; do readlink /proc/self/ns/$n; done; ps | grep -c sleep";
        let mut container = second.create(&["sh", "-c", line], &streams).await.unwrap();
        container.start().await.unwrap();
        let status = wait(container.init());
        container.destroy().await.unwrap();
        let theirs = |file| fs::read_link(format!("/proc/{}/ns/{file}", pod.init().pid)).unwrap();
        let output = streams.output(status);
        let lines: Vec<String> = output.text().lines().map(str::to_owned).collect();
        for (index, file) in ["pid", "net", "ipc"].into_iter().enumerate() {
            assert_eq!(lines[index], theirs(file).to_str().unwrap());
        }
        assert_ne!(lines[3], theirs("uts").to_str().unwrap());
        lines[4].parse::<i32>().unwrap()
    });
    assert!(joined >= 1, "the processes of the pod are not seen");
    let own = fs::read_link("/proc/self/ns/pid_for_children").unwrap();
    assert_eq!(own, fs::read_link("/proc/self/ns/pid").unwrap());
}

fn start_releases_the_program() {
    block_on(async {
        let mut rig = Rig::new();
        let streams = Streams::new();
        let mut container = rig.create(&["echo", "now"], &streams).await.unwrap();
        assert_eq!(streams.output(None).stdout, "");
        container.start().await.unwrap();
        assert_eq!(wait(container.init()), Some(0));
        assert_eq!(streams.output(None).stdout, "now\n");
        assert!(container.start().await.is_err());
        container.destroy().await.unwrap();
    });
}

fn a_parked_container_ends_with_the_shim() {
    block_on(async {
        let mut rig = Rig::new();
        let container = rig.create(&["echo", "never"], &Streams::new()).await.unwrap();
        let pidfd = container.init().pidfd.try_clone().unwrap();
        let cgroup = container.cgroup().directories();
        // What the kernel does to a shim that is killed: its descriptors are closed.
        drop(container);
        use std::os::fd::AsFd;
        let status = berth_sys::pidfd::wait(pidfd.as_fd()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(1));
        cgroup.iter().for_each(|directory| fs::remove_dir(directory).unwrap());
    });
}

fn overlay(rig: &Rig, layers: usize) -> Mount {
    let mut lower = Vec::new();
    for number in 0..layers {
        let layer = rig.bundle().join(format!("a-layer-with-a-name-of-some-length-{number}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(format!("layer{number}")), "").unwrap();
        lower.push(layer.to_str().unwrap().to_owned());
    }
    let base = rig.bundle().join("base");
    fs::rename(rig.root(), &base).unwrap();
    lower.push(base.to_str().unwrap().to_owned());
    let mut options = vec![format!("lowerdir={}", lower.join(":"))];
    for (name, option) in [("upper", "upperdir"), ("work", "workdir"), ("rootfs", "")] {
        let directory = rig.bundle().join(name);
        fs::create_dir(&directory).unwrap();
        if !option.is_empty() {
            options.push(format!("{option}={}", directory.display()));
        }
    }
    Mount {
        kind: Some("overlay".into()),
        source: Some("overlay".into()),
        options,
        ..Mount::default()
    }
}

fn an_overlay_is_the_root() {
    let mut rig = Rig::new();
    rig.rootfs = vec![overlay(&rig, 1)];
    assert_eq!(rig.sh("echo kept > /file; ls -d /layer0").text(), "/layer0");
    assert_eq!(fs::read_to_string(rig.bundle().join("upper/file")).unwrap(), "kept\n");
    assert_eq!(fs::read_dir(rig.root()).unwrap().count(), 0);
}

fn a_hundred_layers_are_the_root() {
    let mut rig = Rig::new();
    rig.rootfs = vec![overlay(&rig, 128)];
    assert_eq!(rig.sh("ls / | grep -c layer").text(), "128");
}

fn the_environment_is_the_specs_and_home() {
    let mut rig = Rig::new();
    rig.process().env.extend(["A=1".to_owned(), "A=2".to_owned()]);
    assert_eq!(rig.run(&["env"]).text(), "PATH=/bin\nA=2\nHOME=/root");
    rig.process().user.uid = 1000;
    rig.process().env.retain(|entry| entry.starts_with("PATH"));
    assert_eq!(rig.run(&["env"]).text(), "PATH=/bin\nHOME=/srv/app");
}

fn loopback_is_up() {
    let output =
        Rig::new().sh("cat /sys/class/net/lo/operstate /proc/net/route; ls /sys/class/net");
    assert!(output.text().starts_with("unknown"), "{output:?}");
    assert!(!output.stdout.contains("eth"));
    block_on(async {
        let mut rig = Rig::new();
        let container = rig.create(&["true"], &Streams::new()).await.unwrap();
        end(&container);
        container.destroy().await.unwrap();
    });
}

/// Gives the container a user namespace whose root is an ordinary user of the host.
fn remap(rig: &mut Rig) {
    let map = vec![IdMapping { container_id: 0, host_id: 100_000, size: 65_536 }];
    rig.linux().namespaces.push(Namespace { kind: "user".into(), path: None });
    rig.linux().uid_mappings = map.clone();
    rig.linux().gid_mappings = map;
    // As the daemon leaves the directories above: whoever knows the way may pass.
    fs::set_permissions(rig.bundle(), fs::Permissions::from_mode(0o711)).unwrap();
}

fn a_new_user_namespace() {
    let mut rig = Rig::new();
    remap(&mut rig);
    for entry in [rig.root(), rig.root().join("tmp"), rig.root().join("dev")] {
        std::os::unix::fs::chown(entry, Some(100_000), Some(100_000)).unwrap();
    }
    let line = "id -u; cat /proc/self/uid_map; echo x > /dev/null; touch /tmp/file; \
                readlink /proc/self/ns/user; mount | grep -c -E ' /(proc|sys|dev/pts|dev/mqueue) '";
    let output = rig.sh(line);
    let template = rig.spec.process.clone().unwrap();
    rig.with_sleeper(async |container| {
        let process = Process { args: vec!["id".into()], ..template };
        let streams = Streams::new();
        let process = container.exec(&process, streams.io()).await.unwrap();
        assert!(streams.output(wait(&process)).text().starts_with("uid=0(root)"));
    });
    let lines: Vec<&str> = output.text().lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_ne!(lines[2], fs::read_link("/proc/self/ns/user").unwrap().to_str().unwrap());
    assert_eq!(lines[3], "4");
    assert_eq!(fs::metadata(rig.root().join("tmp/file")).unwrap().uid(), 100_000);
}

/// An overlay for a container in a user namespace, whose upper directory is its root's.
fn overlay_for_others(rig: &mut Rig) -> Mount {
    remap(rig);
    let mount = overlay(rig, 1);
    std::os::unix::fs::chown(rig.bundle().join("upper"), Some(100_000), Some(100_000)).unwrap();
    mount
}

fn layers_get_the_owners_of_a_user_namespace() {
    let owners = |maps: &[&str]| {
        let mut rig = Rig::new();
        let mut mount = overlay_for_others(&mut rig);
        mount.options.extend(maps.iter().map(|&option| option.to_owned()));
        rig.rootfs = vec![mount];
        let output = rig.sh("echo x > /file; stat -c %u:%g / /bin/busybox /layer0 /file");
        assert_eq!(fs::metadata(rig.bundle().join("upper/file")).unwrap().uid(), 100_000);
        assert_eq!(fs::metadata(rig.bundle().join("base/bin/busybox")).unwrap().uid(), 0);
        output.text().replace('\n', " ")
    };
    let maps = ["uidmap=0:100000:65536", "gidmap=0:100000:65536"];
    assert_eq!(owners(&maps), "0:0 0:0 0:0 0:0");
    // Without, they stay the host's, whom nobody there can be.
    assert_eq!(owners(&[]), "0:0 65534:65534 65534:65534 0:0");
}

fn an_opaque_directory_is_one_in_a_user_namespace() {
    let mut rig = Rig::new();
    let mount = overlay_for_others(&mut rig);
    let layer = rig.bundle().join("a-layer-with-a-name-of-some-length-0/etc");
    fs::create_dir(&layer).unwrap();
    fs::write(layer.join("new"), "").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&layer, "trusted.overlay.opaque", b"y", flags).unwrap();
    rig.rootfs = vec![mount];
    assert_eq!(rig.sh("ls /etc").text(), "new");
}
