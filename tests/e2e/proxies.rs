//! Proxy plugins: our snapshotter in a process of its own, behind berth and behind containerd.

use std::process::Command;

use berth_tests::{Engine, Image, Running, built, wait_until};

const IMAGE: &str = "docker.io/library/busybox:latest";

#[test]
fn a_snapshotter_of_another_process_serves_images_and_containers() {
    let mut engine = Engine::prepare_any();
    let socket = engine.path("s.sock");
    let mut command = Command::new(built("berth-snapshotter"));
    command.arg("--address").arg(&socket).arg("--root").arg(engine.path("proxied"));
    let mut snapshotter = Running::start(&mut command, &engine.path("snapshotter.log"));
    wait_until("the snapshotter", || socket.exists());
    let plugin = "version = 2\n[proxy_plugins.other]\ntype = \"snapshot\"\naddress = ";
    engine.configure(&format!("{plugin}{socket:?}\n"));
    engine.start_daemon();

    let archive = engine.path("image.tar");
    std::fs::write(&archive, Image::busybox(IMAGE).archive()).unwrap();
    let import = ["images", "import", "--snapshotter", "other", archive.to_str().unwrap()];
    engine.ctr(&import).success();
    let list = |kind: &str| {
        let list = engine.ctr(&["snapshots", "--snapshotter", "other", "ls"]).success();
        list.stdout.lines().skip(1).filter(|line| line.contains(kind)).count()
    };
    assert_eq!(list("Committed"), 1);
    let run = ["run", "-d", "--snapshotter", "other", IMAGE, "one", "sleep", "1000"];
    engine.ctr(&run).success();
    assert_eq!(list("Active"), 1);
    engine.ctr(&["tasks", "exec", "--exec-id", "e", "one", "touch", "/new"]).success();
    let usage = engine.ctr(&["snapshots", "--snapshotter", "other", "usage", "one"]).success();
    assert!(usage.stdout.contains("one"), "{}", usage.stdout);
    let taken = engine.ctr(&["snapshots", "--snapshotter", "other", "prepare", "one"]);
    taken.exited(1).complains("already exists");
    let missing = engine.ctr(&["snapshots", "--snapshotter", "other", "info", "nobody"]);
    missing.exited(1).complains("not found");

    engine.ctr(&["tasks", "kill", "-s", "KILL", "one"]).success();
    wait_until("the end", || engine.ctr(&["tasks", "rm", "one"]).code == 0);
    engine.ctr(&["containers", "rm", "one"]).success();
    engine.ctr(&["images", "rm", "--sync", IMAGE]).success();
    assert_eq!(list(""), 0);
    assert!(!snapshotter.has_ended());
}
