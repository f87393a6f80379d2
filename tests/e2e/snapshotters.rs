//! Which snapshotter is used by who names none.

use berth_tests::{Engine, Image};

const IMAGE: &str = "docker.io/library/busybox:latest";

/// The snapshotter of new containers, as the daemon says it and as containers have it.
fn used(engine: &Engine) -> String {
    let created = engine.cli(&["create", "--name", "one", IMAGE, "true"]).success();
    let info = engine.ctr(&["containers", "info", created.line()]).success().stdout;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    engine.cli(&["rm", "one"]).success();
    info["Snapshotter"].as_str().unwrap().to_owned()
}

fn import(engine: &Engine) {
    let archive = engine.path("image.tar");
    std::fs::write(&archive, Image::busybox(IMAGE).archive()).unwrap();
    let import = ["images", "import", "--no-unpack", archive.to_str().unwrap()];
    engine.ctr(&import).success();
}

#[test]
fn it_is_erofs_unless_the_configuration_or_the_namespace_says_otherwise() {
    let Some(mut engine) = Engine::berth() else { return };
    import(&engine);
    assert_eq!(used(&engine), "erofs");
    let label = "containerd.io/defaults/snapshotter=native";
    engine.ctr(&["namespaces", "label", engine.namespace(), label]).success();
    assert_eq!(used(&engine), "native");

    engine.stop_daemon(nix::sys::signal::Signal::SIGTERM);
    engine.configure("version = 4\nsnapshotter = \"overlayfs\"\n");
    engine.start_daemon();
    assert_eq!(used(&engine), "native");
    let none = "containerd.io/defaults/snapshotter=";
    engine.ctr(&["namespaces", "label", engine.namespace(), none]).success();
    assert_eq!(used(&engine), "overlayfs");
}

#[test]
fn what_was_made_on_another_snapshotter_stays_there() {
    let Some(mut engine) = Engine::prepare() else { return };
    engine.configure("version = 4\nsnapshotter = \"overlayfs\"\n");
    engine.start_daemon();
    import(&engine);
    engine.cli(&["run", "--name", "one", IMAGE, "touch", "/own"]).success();
    let before = listed(&engine);
    engine.stop_daemon(nix::sys::signal::Signal::SIGTERM);
    engine.configure("version = 4\nsnapshotter = \"erofs\"\n");
    engine.start_daemon();
    assert_eq!(listed(&engine), before);
    // The image is unpacked once more for new containers, and the old one is as it was.
    engine.cli(&["run", "--rm", IMAGE, "true"]).success();
    engine.cli(&["start", "one"]).success();
    assert_eq!(engine.cli(&["wait", "one"]).success().line(), "0");
    engine.cli(&["rm", "one"]).success();
    engine.cli(&["rmi", IMAGE]).success();
    berth_tests::wait_until("all to be gone", || engine.snapshots() == 0);
}

fn listed(engine: &Engine) -> String {
    engine.cli(&["images"]).success().stdout
}

#[test]
fn a_snapshotter_that_is_not_there_is_said_at_the_start() {
    let Some(engine) = Engine::prepare() else { return };
    engine.configure("version = 4\nsnapshotter = \"zfs\"\n");
    let ended = engine.daemon_command().output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("overlayfs"), "{said}");
    engine.configure("version = 4\n");
}
