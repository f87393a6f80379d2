//! Control groups with real processes in them. The same tests hold on v1 and on v2, so they also
//! run inside a guest that has v2 (`tests/guest/cgroup.sh`). They need root.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use berth_sys::cgroup::{Below, Cgroup, Hierarchies, Version};
use berth_types::Kind;
use berth_types::spec::Resources;
use rustix::event::{PollFd, PollFlags, poll};

/// A cgroup of this test process alone, killed and removed at the end.
struct Scratch {
    path: PathBuf,
    cgroup: Cgroup,
}

impl Scratch {
    fn new(resources: &str) -> Self {
        let path = unique_path();
        let cgroup = Cgroup::create(&path, &parse(resources)).unwrap();
        Self { path, cgroup }
    }

    /// Starts a shell that waits to be moved in, then runs `script`.
    fn run(&self, script: &str) -> Child {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("read -r go\n{script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        for directory in self.cgroup.directories() {
            fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        child
    }

    fn kill(&self) {
        while self.cgroup.kill_all().unwrap() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn freeze(&self) {
        while !self.cgroup.freeze().unwrap() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The text of the first file of that name.
    fn file(&self, names: [&str; 2]) -> String {
        let all = self.cgroup.directories();
        let mut texts =
            all.iter().flat_map(|dir| names.map(|name| fs::read_to_string(dir.join(name))));
        texts.find_map(Result::ok).unwrap().trim().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.kill();
        let removed = self.cgroup.remove();
        if !std::thread::panicking() {
            removed.unwrap();
            assert!(self.cgroup.directories().is_empty());
        }
    }
}

fn unique_path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("/berth-test-{}-{number}/scratch", std::process::id()))
}

fn parse(resources: &str) -> Resources {
    serde_json::from_str(resources).unwrap()
}

fn is_v2() -> bool {
    Hierarchies::discover().unwrap().version() == Version::V2
}

fn output(child: Child) -> (ExitStatus, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status, text(&output.stdout), text(&output.stderr))
}

fn line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

#[test]
fn limits_are_in_force_and_can_be_updated() {
    let scratch = Scratch::new(
        r#"{"memory":{"limit":33554432},"pids":{"limit":50},
            "cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0"}}"#,
    );
    let stats = scratch.cgroup.stats().unwrap();
    assert_eq!((stats.memory.limit, stats.pids.limit), (33_554_432, 50));
    assert_eq!(scratch.file(["cpuset.cpus", "cpuset.cpus"]), "0");
    let quota = scratch.file(["cpu.cfs_quota_us", "cpu.max"]);
    assert_eq!(quota, if is_v2() { "50000 100000" } else { "50000" });

    let update = r#"{"memory":{"limit":67108864},"pids":{"limit":-1},"cpu":{"quota":20000}}"#;
    scratch.cgroup.update(&parse(update)).unwrap();
    let stats = scratch.cgroup.stats().unwrap();
    assert_eq!((stats.memory.limit, stats.pids.limit), (67_108_864, u64::MAX));
    let quota = scratch.file(["cpu.cfs_quota_us", "cpu.max"]);
    assert_eq!(quota, if is_v2() { "20000 100000" } else { "20000" });
}

#[test]
fn memory_and_swap_move_together() {
    let scratch = Scratch::new(r#"{"memory":{"limit":33554432,"swap":33554432}}"#);
    for (limit, swap) in [(67_108_864, 134_217_728), (16_777_216, 16_777_216)] {
        let update = format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#);
        scratch.cgroup.update(&parse(&update)).unwrap();
        assert_eq!(scratch.cgroup.stats().unwrap().memory.limit, limit);
    }
}

#[test]
fn processes_beyond_the_limit_are_refused() {
    let scratch = Scratch::new(r#"{"pids":{"limit":3}}"#);
    let mut child = scratch.run("for i in 1 2 3 4 5; do sleep 1000 & done; echo all; exit");
    child.wait().unwrap();
    // The shell's children hold its output open.
    scratch.kill();
    let (_, stdout, stderr) = output(child);
    assert!(!stdout.contains("all"), "five children fit in three");
    assert!(stderr.contains("fork"), "{stderr}");
}

#[test]
fn a_limit_can_come_while_processes_run() {
    let scratch = Scratch::new("{}");
    let mut child = scratch.run("echo ready; read -r go; sleep 1000 & echo forked; wait");
    assert_eq!(line(&mut child), "ready\n");
    scratch.cgroup.update(&parse(r#"{"pids":{"limit":1},"cpu":{"cpus":"0"}}"#)).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let (status, stdout, _) = output(child);
    assert!(!status.success() && stdout.is_empty(), "{status}: {stdout}");
}

#[test]
fn running_out_of_memory_is_noticed_and_counted() {
    let scratch = Scratch::new(r#"{"memory":{"limit":16777216,"swap":16777216}}"#);
    let watch = scratch.cgroup.watch_oom().unwrap();
    assert!(!watch.clear().unwrap());
    assert_eq!(scratch.cgroup.oom_kills().unwrap(), 0);
    let (status, ..) = output(scratch.run("a=0123456789abcdef; while :; do a=$a$a; done"));
    assert_eq!(status.signal(), Some(9), "{status}");
    assert!(scratch.cgroup.oom_kills().unwrap() >= 1);
    poll(&mut [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)], None).unwrap();
    assert!(watch.clear().unwrap());
}

#[test]
fn devices_are_denied_unless_listed() {
    let nodes = std::env::temp_dir().join(format!("berth-nodes-{}", std::process::id()));
    fs::create_dir_all(&nodes).unwrap();
    for (name, numbers) in [("null", "c 1 3"), ("kmsg", "c 1 11"), ("mem", "c 1 1")] {
        let script = format!("mknod {} {numbers}", nodes.join(name).display());
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
    }
    let scratch = Scratch::new(
        r#"{"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#,
    );
    // A kernel without the device says something else than that it is not permitted.
    let open = |name: &str, how: &str| {
        let script = format!("exec 3{how}{}", nodes.join(name).display());
        !output(scratch.run(&script)).2.contains("not permitted")
    };
    assert!(open("null", "<>"));
    assert!(open("kmsg", "<"));
    assert!(!open("kmsg", ">"));
    assert!(!open("mem", "<"));

    let update = r#"{"devices":[{"allow":true,"type":"c","major":1,"minor":1}]}"#;
    scratch.cgroup.update(&parse(update)).unwrap();
    assert!(open("null", "<>"));
    assert!(!open("kmsg", "<"));
    assert!(open("mem", "<"));
    fs::remove_dir_all(&nodes).unwrap();
}

#[test]
fn everything_is_allowed_to_the_privileged() {
    let scratch = Scratch::new(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#);
    let node = std::env::temp_dir().join(format!("berth-mem-{}", std::process::id()));
    let script = format!("mknod {0} c 1 1 && exec 3<{0}", node.display());
    let (_, _, stderr) = output(scratch.run(&script));
    fs::remove_file(&node).unwrap();
    assert!(!stderr.contains("not permitted"), "{stderr}");
}

#[test]
fn frozen_processes_stand_still_and_can_be_killed() {
    let scratch = Scratch::new("{}");
    let mut child = scratch.run("while read -r word; do echo \"$word\"; done");
    let say = |child: &mut Child, word: &[u8]| child.stdin.as_mut().unwrap().write_all(word);
    say(&mut child, b"one\n").unwrap();
    assert_eq!(line(&mut child), "one\n");

    scratch.freeze();
    assert!(scratch.cgroup.is_frozen().unwrap());
    say(&mut child, b"two\n").unwrap();
    let stdout = child.stdout.as_ref().unwrap();
    let mut answer = [PollFd::new(stdout, PollFlags::IN)];
    let moment = Duration::from_millis(100).try_into().unwrap();
    assert_eq!(poll(&mut answer, Some(&moment)).unwrap(), 0, "it answered in its sleep");
    scratch.cgroup.thaw().unwrap();
    assert!(!scratch.cgroup.is_frozen().unwrap());
    assert_eq!(line(&mut child), "two\n");

    scratch.freeze();
    scratch.kill();
    assert_eq!(output(child).0.signal(), Some(9));
}

#[test]
fn killing_reaches_what_detached_itself() {
    let scratch = Scratch::new("{}");
    let mut child = scratch.run("for i in 1 2 3; do setsid sleep 1000 & done; echo ready; wait");
    assert_eq!(line(&mut child), "ready\n");
    assert!(scratch.cgroup.pids().unwrap().len() >= 4);
    scratch.kill();
    assert_eq!(output(child).0.signal(), Some(9));
    assert!(scratch.cgroup.pids().unwrap().is_empty());
}

#[test]
fn processor_time_is_counted() {
    let scratch = Scratch::new("{}");
    let before = scratch.cgroup.stats().unwrap().cpu.usage;
    let child = scratch.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    assert!(output(child).0.success());
    assert!(scratch.cgroup.stats().unwrap().cpu.usage > before);
}

#[test]
fn only_what_is_needed_is_made_and_all_is_removed() {
    let scratch = Scratch::new("{}");
    let count = scratch.cgroup.directories().len();
    assert!(if is_v2() { count == 1 } else { (1..=3).contains(&count) }, "{count}");
    assert_eq!(scratch.cgroup.clone_target(&Below::default()).unwrap().is_some(), is_v2());

    // A sibling keeps the parent that was made for both; what the container made goes too.
    let sibling = Cgroup::create(&scratch.path.with_file_name("sibling"), &parse("{}")).unwrap();
    let directories = sibling.directories();
    for directory in &directories {
        fs::create_dir_all(directory.join("a/b")).unwrap();
    }
    sibling.remove().unwrap();
    assert!(directories.iter().all(|directory| !directory.exists()));
    let parents: Vec<_> = directories.iter().filter_map(|d| d.parent()).collect();
    assert!(parents.iter().all(|parent| parent.exists()));
    let parents: Vec<_> = parents.into_iter().map(Path::to_owned).collect();
    drop(scratch);
    assert!(parents.iter().all(|parent| !parent.exists()));
    sibling.remove().unwrap();
}

#[test]
fn another_process_can_take_over() {
    let scratch = Scratch::new(r#"{"pids":{"limit":20}}"#);
    let mut child = scratch.run("echo ready; read -r end");
    assert_eq!(line(&mut child), "ready\n");
    let opened = Cgroup::open(&scratch.path).unwrap();
    assert_eq!(opened.pids().unwrap(), [child.id() as i32]);
    let refused = Cgroup::create(&scratch.path, &parse("{}")).unwrap_err();
    assert_eq!(refused.kind(), Kind::AlreadyExists);
    assert_eq!(opened.remove().unwrap_err().kind(), Kind::FailedPrecondition);
    assert_eq!(opened.pids().unwrap().len(), 1);
}

#[test]
fn files_of_v2_are_set_by_their_names() {
    if !is_v2() {
        return;
    }
    let scratch = Scratch::new(
        r#"{"unified":{"memory.high":"33554432","pids.max":"17","cgroup.max.depth":"3"},
            "cpu":{"quota":50000,"period":100000,"burst":20000},
            "memory":{"reservation":16777216}}"#,
    );
    let values = [
        ("memory.high", "33554432"),
        ("pids.max", "17"),
        ("cgroup.max.depth", "3"),
        ("cpu.max", "50000 100000"),
        ("cpu.max.burst", "20000"),
        ("memory.low", "16777216"),
    ];
    for (name, value) in values {
        assert_eq!(scratch.file([name, name]), value, "{name}");
    }
    scratch.cgroup.update(&parse(r#"{"unified":{"memory.high":"max"},"cpu":{"idle":1}}"#)).unwrap();
    assert_eq!(scratch.file(["memory.high", "memory.high"]), "max");
    assert_eq!(scratch.file(["cpu.idle", "cpu.idle"]), "1");
    let path = unique_path();
    for bad in ["../memory.max", "memory", "nothing.like"] {
        let resources = format!(r#"{{"unified":{{"{bad}":"1"}}}}"#);
        Cgroup::create(&path, &parse(&resources)).unwrap_err();
        assert!(Cgroup::open(&path).unwrap().directories().is_empty(), "{bad}");
    }
}

#[test]
fn huge_pages_are_limited_from_their_reservation_on() {
    if !Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        return;
    }
    let limits = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
    let path = unique_path();
    match Cgroup::create(&path, &parse(limits)) {
        // The machine's kernel has no such controller.
        Err(error) if error.kind() == Kind::FailedPrecondition => {}
        cgroup => {
            let scratch = Scratch { path, cgroup: cgroup.unwrap() };
            for what in ["", ".rsvd"] {
                let names =
                    ["limit_in_bytes", "max"].map(|name| format!("hugetlb.2MB{what}.{name}"));
                assert_eq!(scratch.file([&names[0], &names[1]]), "4194304", "{what}");
            }
        }
    }
}

#[test]
fn block_devices_are_weighed_without_their_special_scheduler() {
    if !is_v2() {
        return;
    }
    let scratch = Scratch::new("{}");
    let has = |name: &str| scratch.cgroup.directories()[0].join(name).exists();
    if !has("io.bfq.weight") && !has("io.weight") {
        return;
    }
    scratch.cgroup.update(&parse(r#"{"blockIO":{"weight":505}}"#)).unwrap();
    let weight = scratch.file(["io.bfq.weight", "io.weight"]);
    assert!(["505", "default 505", "default 5000"].contains(&weight.as_str()), "{weight}");
}

#[test]
fn a_refused_limit_leaves_nothing() {
    let path = unique_path();
    let cases = [
        (r#"{"cpu":{"quota":1,"period":100000}}"#, Kind::InvalidArgument),
        (r#"{"cpu":{"cpus":"0,99999"}}"#, Kind::InvalidArgument),
        (r#"{"cpu":{"cpus":"none"}}"#, Kind::InvalidArgument),
        (r#"{"hugepageLimits":[{"pageSize":"3KB","limit":1}]}"#, Kind::FailedPrecondition),
        (r#"{"devices":[{"allow":true,"type":"x"}]}"#, Kind::InvalidArgument),
    ];
    for (resources, kind) in cases {
        let error = Cgroup::create(&path, &parse(resources)).unwrap_err();
        assert_eq!(error.kind(), kind, "{resources}: {error}");
        assert!(Cgroup::open(&path).unwrap().directories().is_empty(), "{resources}");
        let parent = Cgroup::open(path.parent().unwrap()).unwrap();
        assert!(parent.directories().is_empty(), "{resources}");
    }
}
