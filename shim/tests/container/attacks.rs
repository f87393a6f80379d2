//! Images and specs that mean ill. Each case names the advisory it comes from.

use std::fs;
use std::os::unix::fs::symlink;

use berth_types::spec::Mount;

use crate::rig::{Rig, Streams, block_on};

crate::cases![
    mount_targets_do_not_leave_the_root,
    a_linked_proc_is_refused,
    nothing_is_mounted_into_proc,
    a_linked_dev_stays_inside,
    the_working_directory_is_inside,
    a_linked_masked_path_is_masked,
    the_shims_program_is_not_reached,
    the_container_is_not_visible_before_it_is_one,
    a_fifo_for_passwd_does_not_hang,
];

/// CVE-2021-30465 and its like: links in the image where mounts go.
fn mount_targets_do_not_leave_the_root() {
    let mut rig = Rig::new();
    let outside = rig.bundle().join("outside");
    let source = rig.bundle().join("source");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&source).unwrap();
    fs::write(source.join("proof"), "").unwrap();
    symlink(&outside, rig.root().join("absolute")).unwrap();
    symlink("../../../../../../outside", rig.root().join("relative")).unwrap();
    let inside = rig.root().join(outside.strip_prefix("/").unwrap());
    fs::create_dir_all(inside).unwrap();
    rig.bind(&source, "/absolute", &["rbind"]);
    rig.bind(&source, "/relative/../made/../also", &["rbind"]);
    let output = rig.sh("ls /absolute /also");
    assert_eq!(output.text(), "/absolute:\nproof\n\n/also:\nproof");
    rig.bind(&source, "/made/../../outside", &["rbind"]);
    let error = rig.try_run(&["true"]).unwrap_err();
    assert!(error.message().contains("outside of the root"), "{error}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642.
fn a_linked_proc_is_refused() {
    for kind in ["proc", "sys"] {
        let mut rig = Rig::new();
        fs::remove_dir(rig.root().join(kind)).unwrap();
        symlink("tmp", rig.root().join(kind)).unwrap();
        let error = rig.try_run(&["true"]).unwrap_err();
        assert!(error.message().contains(&format!("mount /{kind}")), "{error}");
    }
}

/// CVE-2019-16884.
fn nothing_is_mounted_into_proc() {
    for destination in ["/proc", "/proc/self/attr", "/tmp/../proc/sys"] {
        let mut rig = Rig::new();
        let fake = rig.bundle().join("fake");
        fs::create_dir(&fake).unwrap();
        rig.bind(&fake, destination, &["rbind"]);
        let error = rig.try_run(&["true"]).unwrap_err();
        assert!(error.message().contains("/proc"), "{destination}: {error}");
    }
    let mut rig = Rig::new();
    let file = rig.bundle().join("uptime");
    fs::write(&file, "1.00 1.00\n").unwrap();
    rig.bind(&file, "/proc/uptime", &["bind"]);
    assert_eq!(rig.run(&["cat", "/proc/uptime"]).text(), "1.00 1.00");
}

/// CVE-2026-41579: an image whose `/dev` leads to the host's.
fn a_linked_dev_stays_inside() {
    let mut rig = Rig::new();
    let outside = rig.bundle().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir(rig.root().join("dev")).unwrap();
    symlink(&outside, rig.root().join("dev")).unwrap();
    rig.spec.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    // Where the link leads inside of the root there is nothing: that is a failure, or a new place.
    let _ = rig.try_run(&["true"]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

/// CVE-2024-21626.
fn the_working_directory_is_inside() {
    // A descriptor of the host, as a leak would leave it.
    let leak = fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    for number in 3..16 {
        let mut rig = Rig::new();
        rig.process().cwd = format!("/proc/self/fd/{number}");
        let error = rig.try_run(&["pwd"]).unwrap_err();
        assert!(error.message().contains("process.cwd"), "{error}");
        let mut rig = Rig::new();
        symlink(format!("/proc/self/fd/{number}"), rig.root().join("link")).unwrap();
        rig.process().cwd = "/link/".into();
        rig.try_run(&["pwd"]).unwrap_err();
        let mut rig = Rig::new();
        let exec = rig.spec.process.clone().unwrap();
        rig.with_sleeper(async |container| {
            let mut process = exec.clone();
            process.cwd = format!("/proc/self/fd/{number}");
            process.args = vec!["pwd".into()];
            container.exec(&process, Streams::new().io()).await.unwrap_err();
        });
    }
}

/// CVE-2023-28642.
fn a_linked_masked_path_is_masked() {
    let mut rig = Rig::new();
    fs::write(rig.root().join("tmp/secret"), "s").unwrap();
    symlink("/tmp/secret", rig.root().join("hidden")).unwrap();
    rig.linux().masked_paths.push("/hidden".into());
    assert_eq!(rig.sh("wc -c < /hidden; wc -c < /tmp/secret").text(), "0\n0");
}

/// CVE-2019-5736: while a process joins, nobody inside may open what it runs.
fn the_shims_program_is_not_reached() {
    let mut rig = Rig::new();
    let process = rig.spec.process.clone().unwrap();
    rig.with_sleeper(async |container| {
        let watch = berth_types::spec::Process {
            args: ["sh", "-c", "while :; do for p in /proc/[0-9]*; do readlink $p/exe; done; done"]
                .map(str::to_owned)
                .to_vec(),
            ..process.clone()
        };
        let streams = Streams::new();
        let watcher = container.exec(&watch, streams.io()).await.unwrap();
        for _ in 0..50 {
            let args = vec!["true".to_owned()];
            let exec = berth_types::spec::Process { args, ..process.clone() };
            let exec = container.exec(&exec, Streams::new().io()).await.unwrap();
            crate::rig::wait(&exec);
        }
        use std::os::fd::AsFd;
        berth_sys::pidfd::send_signal(watcher.pidfd.as_fd(), 9).unwrap();
        crate::rig::wait(&watcher);
        let seen = streams.output(None).stdout;
        assert!(seen.contains("/bin/busybox"), "the watcher saw nothing");
        let others: Vec<&str> = seen.lines().filter(|line| !line.ends_with("busybox")).collect();
        assert!(others.is_empty(), "{others:?}");
    });
}

fn the_container_is_not_visible_before_it_is_one() {
    block_on(async {
        let mut rig = Rig::new();
        let container = rig.create(&["true"], &Streams::new()).await.unwrap();
        let environment = format!("/proc/{}/environ", container.init().pid);
        // As root of the host one may look; what counts is whom the kernel makes the owner.
        use std::os::unix::fs::MetadataExt;
        rig.process().user.uid = 1000;
        let other = rig.create(&["true"], &Streams::new()).await;
        assert!(other.is_err(), "two containers in one control group");
        assert_eq!(fs::metadata(environment).unwrap().uid(), 0);
        crate::rig::end(&container);
        container.destroy().await.unwrap();
    });
}

/// CVE-2024-9676.
fn a_fifo_for_passwd_does_not_hang() {
    let mut rig = Rig::new();
    let passwd = rig.root().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    rig.spec.mounts.push(Mount {
        destination: "/scratch".into(),
        kind: Some("tmpfs".into()),
        ..Mount::default()
    });
    assert_eq!(rig.sh("echo $HOME").text(), "/");
}
