//! Images, specs and processes that mean ill. Each test names the advisory that it comes from.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::rig::{Rig, machine_has, on_both, on_ours, rounds};

/// Runs `script` in a container with the capability `extra` while processes join it, until it has
/// noticed one, and ends both.
fn watch_joins(rig: &mut Rig, extra: Option<&str>, script: &str) {
    for set in ["bounding", "effective", "permitted"] {
        let list = rig.spec["process"]["capabilities"][set].as_array_mut().unwrap();
        list.extend(extra.map(|name| json!(name)));
    }
    fs::write(rig.root().join("script"), script).unwrap();
    rig.create(&["sh", "-c", "while :; do . /script; done 2> /dev/null"]).success();
    rig.verb(&["start"]).success();
    let seen = rig.root().join("seen");
    let (mut joins, most) = (0, rounds("JOINS", 60) * 20);
    while joins < rounds("JOINS", 60) || !seen.exists() && joins < most {
        rig.call(&["exec", &rig.id, "true"]).success();
        joins += 1;
    }
    rig.verb(&["delete", "--force"]).success();
}

/// CVE-2019-5736: who may look into every process of the container gets hold of the runtime's
/// program while a process joins, and still can't write to it, then or later.
#[test]
fn the_runtimes_program_is_not_written() {
    let script = "for p in /proc/[0-9]*; do
            [ $p/exe -ef /bin/busybox ] && continue
            ( exec 9< $p/exe || exit
              : > /seen
              i=0
              while [ $i -lt 300 ]; do
                  : 9>> /proc/self/fd/9 && : > /won
                  ( : >> /proc/self/fd/9 ) && : > /won
                  i=$((i + 1))
              done )
        done";
    on_both(|rig| {
        watch_joins(rig, Some("CAP_SYS_PTRACE"), script);
        assert!(rig.root().join("seen").exists(), "no process was seen while it joined");
        assert!(!rig.root().join("won").exists(), "the program can be written");
    });
}

/// CVE-2016-9962 and its like: a process that joins is not to be looked into before it is one of
/// the container's.
#[test]
fn the_runtimes_memory_is_not_read() {
    // In the middle of an execve nothing is mapped but a stack.
    let script = ": > /seen
        for p in /proc/[0-9]*; do
            maps=$(cat $p/maps)
            case \"$maps\" in
            *busybox*) ;;
            */*) echo \"$maps\" > /won ;;
            esac
        done";
    on_both(|rig| {
        watch_joins(rig, None, script);
        let won = fs::read_to_string(rig.root().join("won")).unwrap_or_default();
        assert_eq!(won, "", "memory of the runtime's was looked at");
    });
}

/// CVE-2019-5736: a program that is a script of `/proc/self/exe` is the runtime's own, run inside.
#[test]
fn the_runtimes_program_is_not_run_inside() {
    use std::os::unix::fs::PermissionsExt;
    on_both(|rig| {
        let script = rig.root().join("bin/script");
        fs::write(&script, "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        for program in ["/bin/script", "/proc/self/exe"] {
            // Whatever it does, it has no way to the file: the program is as it was.
            let before = fs::metadata(rig.program()).unwrap();
            rig.run(&[program, "--version"]);
            let after = fs::metadata(rig.program()).unwrap();
            assert_eq!(before.modified().unwrap(), after.modified().unwrap());
            rig.verb(&["delete", "-f"]).success();
        }
    });
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: a link in place of `/proc` or `/sys` would leave
/// the real one without its masks.
#[test]
fn linked_kernel_filesystems_are_refused() {
    on_both(|rig| {
        for name in ["proc", "sys"] {
            let path = rig.root().join(name);
            fs::remove_dir(&path).unwrap();
            symlink("tmp", &path).unwrap();
            assert_ne!(rig.run(&["true"]).code, 0, "{name}");
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
    });
}

/// CVE-2021-30465, CVE-2024-45310: somebody swaps a directory on the way to a mount's target for a
/// link that leads out, again and again. Nothing is made or mounted outside.
#[test]
fn swapped_mount_targets_stay_inside() {
    on_ours("it makes directories outside now and then", |rig| {
        let outside = rig.bundle().join("outside");
        fs::create_dir(&outside).unwrap();
        let (target, link) = (rig.root().join("target"), rig.root().join("link"));
        fs::create_dir(&target).unwrap();
        symlink(&outside, &link).unwrap();
        let source = rig.bundle().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "").unwrap();
        rig.bind(&source, "/target/a/b", &["rbind"]);
        rig.bind(&source.join("file"), "/target/c/d", &["bind"]);
        rig.add_mount(json!({ "destination": "/target/e", "type": "tmpfs", "source": "t" }));
        rig.spec["process"]["cwd"] = json!("/target/f/g");
        rig.spec["linux"]["devices"] =
            json!([{ "path": "/target/null", "type": "c", "major": 1, "minor": 3 }]);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    renameat_with(CWD, &target, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                }
            });
            for _ in 0..rounds("SWAPS", 60) {
                // It may fail, as long as it does nothing outside.
                rig.run(&["true"]);
            }
            done.store(true, Ordering::Relaxed);
        });
        let made: Vec<_> = fs::read_dir(&outside).unwrap().flatten().collect();
        assert!(made.is_empty(), "{made:?}");
    });
}

/// CVE-2022-29162: nobody inherits capabilities, neither the first process nor one that joins.
#[test]
fn no_capability_is_inherited() {
    on_both(|rig| {
        let line = "grep -E 'CapInh|CapAmb' /proc/self/status | tr -dc '1-9a-f\\n'";
        assert_eq!(rig.sh(line).replace(|letter: char| !letter.is_ascii_digit(), ""), "");
        rig.with_sleeper(|rig| {
            let call = ["exec", "--cap", "CAP_SYS_ADMIN", &rig.id, "cat", "/proc/self/status"];
            let status = rig.call(&call).success().stdout;
            let sets = status.lines().filter(|line| line.starts_with("CapInh"));
            assert_eq!(sets.collect::<Vec<_>>(), ["CapInh:\t0000000000000000"]);
        });
    });
}

/// CVE-2023-25809: the control groups that a container sees are its own and can't be written, with
/// a cgroup namespace and without.
#[test]
fn control_groups_are_not_written() {
    if !machine_has("/sys/fs/cgroup/memory/tasks") {
        return;
    }
    on_both(|rig| {
        rig.add_mount(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        }));
        let line = "cd /sys/fs/cgroup/memory && cat cgroup.procs && ! mkdir made && \
                    ! echo 1 > memory.limit_in_bytes && ! echo $$ > ../devices/cgroup.procs && \
                    ! mount -o remount,rw /sys/fs/cgroup/memory && echo safe";
        for own in [true, false] {
            if !own {
                rig.namespace("cgroup", None);
            }
            let shown = rig.run(&["sh", "-c", line]).success().stdout;
            let lines: Vec<&str> = shown.lines().collect();
            assert_eq!(*lines.last().unwrap(), "safe", "{shown}");
            // Its shell and `cat`, and nobody of the host's.
            assert!(lines.len() <= 3, "{shown}");
        }
    });
}

/// runtime.md, "Delete": control groups that a container nests deeper than the name of a path can
/// be long are removed all the same, and what runs in them is killed.
#[test]
fn deep_control_groups_are_removed() {
    if !machine_has("/sys/fs/cgroup/devices/tasks") {
        return;
    }
    on_ours("it gives up on names that are too long", |rig| {
        rig.add_mount(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        }));
        rig.namespace("pid", None);
        let line = format!(
            "cd /sys/fs/cgroup/devices; i=0; while [ $i -lt 40 ]; do
                 mkdir {name} && cd -P {name} || exit; i=$((i + 1)); done
             echo 0 > cgroup.procs; : > /ready; sleep 1000 & exec sleep 1000",
            name = "x".repeat(200)
        );
        rig.create(&["sh", "-c", &line]).success();
        rig.verb(&["start"]).success();
        berth_tests::wait_until("the container", || rig.root().join("ready").exists());
        rig.verb(&["delete", "--force"]).success();
        rig.assert_nothing_left();
    });
}

/// CVE-2024-21626: a working directory by a descriptor of the runtime's.
#[test]
fn the_working_directory_is_inside() {
    on_both(|rig| {
        for number in 3..12 {
            let path = format!("/proc/self/fd/{number}");
            rig.spec["process"]["cwd"] = json!(path);
            assert_ne!(rig.run(&["true"]).code, 0, "{path}");
            rig.spec["process"]["cwd"] = json!("/");
        }
        rig.with_sleeper(|rig| {
            for number in 3..12 {
                let path = format!("/proc/self/fd/{number}");
                let exec = rig.call(&["exec", "--cwd", &path, &rig.id, "true"]);
                assert_ne!(exec.code, 0, "{path}");
                let link = format!("link-{number}");
                symlink(&path, rig.root().join(&link)).unwrap();
                let exec = rig.call(&["exec", "--cwd", &format!("/{link}"), &rig.id, "true"]);
                assert_ne!(exec.code, 0, "{path} through a link");
            }
        });
    });
}

/// The spec without a `/dev` of its own: the image's is the container's.
fn with_the_images_devices(rig: &mut Rig) {
    let mounts = rig.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
}

/// CVE-2025-31133: what lies over a masked path is the null device, whatever the image has in its
/// place.
#[test]
fn masks_are_the_real_null_device() {
    on_ours("it takes the image's", |rig| {
        with_the_images_devices(rig);
        for (name, content) in [("secret", "hidden"), ("bait", "shown")] {
            fs::write(rig.root().join(name), content).unwrap();
        }
        rig.spec["linux"]["maskedPaths"] = json!(["/secret"]);
        let null = rig.root().join("dev/null");
        for swapped in ["link", "file"] {
            match swapped {
                "link" => symlink("/bait", &null).unwrap(),
                _ => fs::write(&null, "shown").unwrap(),
            }
            let ran = rig.run(&["sh", "-c", "cat /secret; stat -c %F /secret"]);
            if ran.code == 0 {
                assert_eq!(ran.line(), "character special file");
            }
            assert_eq!(fs::read_to_string(rig.root().join("bait")).unwrap(), "shown");
            let _ = fs::remove_file(&null);
        }
    });
}

/// CVE-2025-52565: `/dev/console` as a link to what is masked, and to the outside.
#[test]
fn the_console_is_where_it_belongs() {
    on_ours("it binds wherever the link leads", |rig| {
        with_the_images_devices(rig);
        rig.add_mount(json!({
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
        }));
        rig.spec["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/keys"]);
        rig.spec["process"]["terminal"] = json!(true);
        let outside = rig.bundle().join("outside");
        fs::write(&outside, "untouched").unwrap();
        let line = "cat /proc/keys | wc -c; stat -c %t:%T /proc/kcore; echo end";
        rig.spec["process"]["args"] = json!(["sh", "-c", line]);
        rig.write_spec();
        for link in ["/proc/keys", "/proc/kcore", outside.to_str().unwrap()] {
            let console = rig.root().join("dev/console");
            let _ = fs::remove_file(&console);
            symlink(link, &console).unwrap();
            let mut command = rig.command();
            command.args(["run", &rig.id]);
            let mut terminal = berth_tests::Terminal::start(command);
            if terminal.ends() == 0 {
                let shown = terminal.shown();
                assert!(shown.contains("1:3") && shown.starts_with('0'), "{link}: {shown}");
            }
            assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
        }
    });
}

/// CVE-2026-41579: the image's `/dev` is a link to the outside, where nothing is made.
#[test]
fn a_linked_dev_stays_inside() {
    on_ours("it follows such links", |rig| {
        let outside = rig.bundle().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::remove_dir(rig.root().join("dev")).unwrap();
        symlink(&outside, rig.root().join("dev")).unwrap();
        for own in [true, false] {
            if !own {
                with_the_images_devices(rig);
            }
            for terminal in [false, true] {
                rig.spec["process"]["terminal"] = json!(terminal);
                rig.run(&["true"]);
                rig.verb(&["delete", "-f"]).success();
                assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{own} {terminal}");
            }
        }
    });
}

/// CVE-2019-16884: nothing may lie over `/proc` that feigns it, and nothing in it but what tells of
/// the container's size.
#[test]
fn nothing_feigns_proc() {
    on_both(|rig| {
        let fake = rig.bundle().join("fake");
        fs::create_dir_all(fake.join("self/attr")).unwrap();
        fs::write(fake.join("file"), "").unwrap();
        symlink("/proc", rig.root().join("link-to-proc")).unwrap();
        symlink("../../proc/sys", rig.root().join("link-to-sys")).unwrap();
        for (source, destination) in [
            (fake.clone(), "/proc"),
            (fake.clone(), "/proc/self/attr"),
            (fake.join("file"), "/proc/self/attr/exec"),
            (fake.clone(), "/tmp/../proc/sys"),
            (fake.clone(), "/link-to-proc"),
            (fake.clone(), "/link-to-sys"),
            (fake.join("file"), "/link-to-proc/self/attr/exec"),
        ] {
            let whole = rig.spec["mounts"].clone();
            rig.bind(&source, destination, &["rbind"]);
            assert_ne!(rig.run(&["true"]).code, 0, "{destination}");
            rig.spec["mounts"] = whole;
        }
    });
}

/// config.md, "Mounts": what is mounted over the root would be there for those who join and not for
/// the container, with other files and without the masks. The image's links can lead there too.
#[test]
fn nothing_covers_the_root() {
    on_both(|rig| {
        symlink("/", rig.root().join("link")).unwrap();
        let source = rig.bundle().join("source");
        fs::create_dir(&source).unwrap();
        for destination in ["/", "/.", "/tmp/..", "/link"] {
            let whole = rig.spec["mounts"].clone();
            rig.bind(&source, destination, &["rbind"]);
            assert_ne!(rig.run(&["true"]).code, 0, "{destination}");
            rig.spec["mounts"] = whole.clone();
            rig.add_mount(json!({ "destination": destination, "type": "tmpfs", "source": "t" }));
            assert_ne!(rig.run(&["true"]).code, 0, "{destination}");
            rig.spec["mounts"] = whole;
        }
    });
}

/// CVE-2025-52881: what is written to the kernel goes to it, wherever a link in the image leads.
#[test]
fn parameters_are_written_to_the_kernel() {
    on_both(|rig| {
        rig.spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "33" });
        let bait = rig.root().join("bait");
        fs::write(&bait, "untouched").unwrap();
        // Before `/proc` is mounted over it, the image has one of its own.
        let own = rig.root().join("proc/sys/net/ipv4");
        fs::create_dir_all(&own).unwrap();
        symlink("/bait", own.join("ip_default_ttl")).unwrap();
        assert_eq!(rig.sh("cat /proc/sys/net/ipv4/ip_default_ttl"), "33");
        assert_eq!(fs::read_to_string(&bait).unwrap(), "untouched");
    });
}

/// CVE-2022-36109, CVE-2023-25173: the primary group is a supplementary one too, so that giving it
/// up does not open what is denied to it.
#[test]
fn the_primary_group_can_not_be_given_up() {
    on_ours("it leaves that to engines", |rig| {
        rig.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5] });
        let groups = rig.sh("grep Groups /proc/self/status");
        let mut numbers: Vec<&str> = groups.split_whitespace().skip(1).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, ["1001", "5"]);
    });
}

/// CVE-2024-9676, CVE-2025-4437: `/etc/passwd` is a FIFO, endless, or a link to a device.
#[test]
fn accounts_are_read_from_files_of_a_size() {
    on_ours("it reads all of it", |rig| {
        let passwd = rig.root().join("etc/passwd");
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        let fifo = rustix::fs::FileType::Fifo;
        for kind in ["fifo", "endless", "zeros", "directory"] {
            match kind {
                "fifo" => rustix::fs::mknodat(CWD, &passwd, fifo, mode, 0).unwrap(),
                "endless" => fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap(),
                "zeros" => symlink("/dev/zero", &passwd).unwrap(),
                _ => fs::create_dir(&passwd).unwrap(),
            }
            assert_eq!(rig.sh("echo $HOME"), "/", "{kind}");
            let _ = fs::remove_file(&passwd);
        }
    });
}

/// CVE-2019-14271 and its like: what runs in a container starts with the container's own files, and
/// nothing of the host's environment.
#[test]
fn nothing_of_the_callers_goes_along() {
    on_both(|rig| {
        rig.spec["process"]["args"] = json!(["env"]);
        rig.write_spec();
        let mut command = rig.command();
        command.env("SECRET", "of the host").env("LD_PRELOAD", "").args(["run", &rig.id]);
        let ran = berth_tests::Finished::leaving(&mut command).success();
        assert!(!ran.stdout.contains("SECRET") && !ran.stdout.contains("LD_"), "{}", ran.stdout);
        rig.with_sleeper(|rig| {
            let mut command = rig.command();
            command.env("SECRET", "of the host").args(["exec", &rig.id, "env"]);
            let ran = berth_tests::Finished::leaving(&mut command).success();
            assert!(!ran.stdout.contains("SECRET"), "{}", ran.stdout);
        });
    });
}

/// config-linux.md, "Masked Paths" and "Readonly Paths": they hold though the container's root may
/// try to mount and unmount without the right to.
#[test]
fn masks_stay() {
    on_both(|rig| {
        rig.spec["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/acpi"]);
        rig.spec["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
        let line = "umount /proc/keys; umount /proc/sys; mount -o remount,rw /proc/sys; \
                    cat /proc/keys | wc -c; echo x > /proc/sys/kernel/hostname || echo kept";
        assert_eq!(rig.sh(line), "0\nkept");
    });
}
