//! The snapshotters beside `overlayfs`, through Debian's `ctr` and with runc's shim.

use berth_tests::{Engine, Image, Layer};

const IMAGE: &str = "docker.io/library/layers:latest";

/// An image whose second layer takes something of the first away.
fn image() -> Image {
    let below = [("data/kept", &b"kept"[..]), ("data/gone", b"gone")];
    let above = [("data/.wh.gone", &b""[..]), ("data/new", b"new")];
    Image::busybox(IMAGE).layer(Layer::of_files(&below)).layer(Layer::of_files(&above))
}

/// Imports, runs by each shim, commits nothing and removes all.
fn lives_on(snapshotter: &str) {
    let Some(engine) = Engine::berth() else { return };
    let archive = engine.path("image.tar");
    std::fs::write(&archive, image().archive()).unwrap();
    let on = ["--snapshotter", snapshotter];
    let import = [&["images", "import"], &on[..], &[archive.to_str().unwrap()]].concat();
    engine.ctr(&import).success();
    for runtime in ["io.containerd.berth.v1", "/usr/bin/containerd-shim-runc-v2"] {
        let script = "ls /data && echo more > /data/kept && cat /data/kept";
        let run =
            [&["run", "--rm", "--runtime", runtime], &on[..], &[IMAGE, "one", "sh", "-c", script]];
        assert_eq!(engine.ctr(&run.concat()).success().stdout, "kept\nnew\nmore\n", "{runtime}");
    }
    let list = || {
        let list = engine.ctr(&[&["snapshots"], &on[..], &["ls"]].concat()).success().stdout;
        list.lines().skip(1).filter(|line| line.contains("Committed")).count()
    };
    assert_eq!(list(), 3);
    engine.ctr(&["images", "rm", "--sync", IMAGE]).success();
    assert_eq!((list(), engine.snapshots()), (0, 0));
}

#[test]
fn images_live_on_erofs() {
    lives_on("erofs");
}

#[test]
fn images_live_on_native() {
    lives_on("native");
}

#[test]
fn what_was_changed_becomes_a_layer_on_erofs() {
    let Some(engine) = Engine::berth() else { return };
    let archive = engine.path("image.tar");
    std::fs::write(&archive, image().archive()).unwrap();
    engine
        .ctr(&["images", "import", "--snapshotter", "erofs", archive.to_str().unwrap()])
        .success();
    let change = "rm /data/kept && echo own > /data/own";
    let run = ["run", "--snapshotter", "erofs", IMAGE, "one", "sh", "-c", change];
    engine.ctr(&run).success();
    engine.ctr(&["snapshots", "--snapshotter", "erofs", "commit", "mine", "one"]).success();
    let view = ["snapshots", "--snapshotter", "erofs", "view", "look", "mine"];
    engine.ctr(&view).success();
    let target = engine.path("look");
    std::fs::create_dir(&target).unwrap();
    let place = target.to_str().unwrap();
    let mounts = ["snapshots", "--snapshotter", "erofs", "mounts", place, "look"];
    let command = engine.ctr(&mounts).success().stdout;
    let mount = |line: &str| std::process::Command::new("sh").args(["-c", line]).status().unwrap();
    assert!(mount(&command).success(), "{command}");
    let mut names: Vec<_> = std::fs::read_dir(target.join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(mount(&format!("umount {place}")).success());
    assert_eq!(names, ["new", "own"]);
    let remove = ["snapshots", "--snapshotter", "erofs", "rm", "look", "mine"];
    engine.ctr(&remove).success();
}
