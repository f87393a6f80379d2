//! Proxy plugins: our snapshotter in a process of its own, behind berth and behind containerd; and
//! content that another engine keeps for berth.

use std::path::{Path, PathBuf};
use std::process::Command;

use berth_tests::{
    Engine, Finished, Flavor, Image, Layer, Registry, Running, built, noise, wait_until,
};
use berth_types::Digest;
use nix::sys::signal::Signal;

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

/// A layer that changes and removes what is below it, and links to it.
fn changing() -> Layer {
    Layer::new(|tar| {
        let mut member = |path: &str, kind, target: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            match target {
                "" => tar.append_data(&mut header, path, content).unwrap(),
                target => tar.append_link(&mut header, path, target).unwrap(),
            }
        };
        member("etc/.wh.group", tar::EntryType::Regular, "", b"");
        member("etc/passwd", tar::EntryType::Regular, "", b"root:x:0:0::/:/bin/sh\n");
        member("linked", tar::EntryType::Link, "noise", b"");
    })
}

/// `berth` pulls, runs, checks and removes on a snapshotter that another process serves, in each
/// form of layers.
#[test]
fn cli_images_are_pulled_onto_a_snapshotter_of_another_process() {
    let registry = Registry::start();
    registry.push(
        &Image::busybox("mine").layer(Layer::of_noise("noise", 7, 1 << 20)).layer(changing()),
    );
    let name = registry.reference("mine");
    for form in ["overlayfs", "native", "erofs"] {
        let Some(mut engine) = Engine::prepare() else { return };
        let socket = engine.path("s.sock");
        let mut command = Command::new(built("berth-snapshotter"));
        command.arg("--address").arg(&socket).arg("--root").arg(engine.path("proxied"));
        command.args(["--snapshotter", form]);
        let mut snapshotter = Running::start(&mut command, &engine.path("snapshotter.log"));
        wait_until("the snapshotter", || socket.exists());
        let plugin =
            "snapshotter = \"other\"\n[proxy_plugins.other]\ntype = \"snapshot\"\naddress = ";
        engine.configure(&format!("{plugin}{socket:?}\n"));
        engine.start_daemon();
        engine.cli(&["pull", &name]).success();
        let script = "sha256sum </noise; sha256sum </linked; cat /etc/passwd; ls /etc";
        let seen = engine.cli(&["run", "--rm", &name, "sh", "-c", script]).success().stdout;
        let sum = format!("{}  -\n", Digest::of(&noise(7, 1 << 20)).hex());
        let expected =
            format!("{sum}{sum}root:x:0:0::/:/bin/sh\nhostname\nhosts\npasswd\nresolv.conf\n");
        assert_eq!(seen, expected, "{form}");
        engine.cli(&["pull", &name]).success();
        engine.cli(&["system", "check"]).success();
        engine.cli(&["rmi", &name]).success();
        let list = engine.ctr(&["snapshots", "--snapshotter", "other", "ls"]).success().stdout;
        assert_eq!(list.lines().count(), 1, "{form}: {list}");
        engine.stop_daemon(Signal::SIGTERM);
        snapshotter.stop(Signal::SIGTERM);
        // Who needs it is told that it is gone.
        engine.start_daemon();
        engine.cli(&["pull", &name]).exited(1).complains("snapshotter other");
        assert_eq!(engine.ctr(&["images", "ls", "-q"]).success().stdout, "");
    }
}

/// An engine whose content `keeper` keeps.
fn kept_by(keeper: &Engine) -> Option<Engine> {
    let mut engine = Engine::prepare()?;
    let address = keeper.address();
    engine.configure(&format!("[proxy_plugins.kept]\ntype = \"content\"\naddress = {address:?}\n"));
    engine.start_daemon();
    Some(engine)
}

/// The blobs that `keeper` keeps for another engine.
fn kept(keeper: &Engine) -> Vec<String> {
    let address = keeper.address().display().to_string();
    let list = ["--address", &address, "--namespace", "berth", "content", "ls", "-q"];
    sorted(&Finished::run("ctr", &list, b"").success().stdout)
}

fn sorted(list: &str) -> Vec<String> {
    let mut lines: Vec<_> = list.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Where `engine` keeps blobs as files.
fn blobs(engine: &Engine) -> PathBuf {
    engine.root().join(match engine.flavor() {
        Flavor::Berth => "content/blobs/sha256",
        Flavor::Containerd => "io.containerd.content.v1.content/blobs/sha256",
    })
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

fn content_is_kept_by(flavor: Flavor) {
    let keeper = Engine::start_flavor(flavor);
    let Some(mut engine) = kept_by(&keeper) else { return };
    let registry = Registry::start();
    // With a layer that takes several messages.
    let image = Image::busybox("box").layer(Layer::of_noise("noise", 1, 5 << 20));
    registry.push(&image);
    let name = registry.reference("box");
    engine.cli(&["pull", &name]).success();
    let list = || sorted(&engine.ctr(&["content", "ls", "-q"]).success().stdout);
    let pulled = list();
    assert!(pulled.len() >= 3, "{pulled:?}");
    for digest in &pulled {
        assert!(kept(&keeper).contains(digest), "{digest}");
    }
    assert!(is_empty(&blobs(&engine)));
    assert_eq!(engine.cli(&["run", "--rm", &name, "echo", "x"]).success().stdout, "x\n");
    // Unpacked once more, from what is kept.
    let full = format!("{name}:latest");
    let run = ["run", "--rm", "--snapshotter", "native", &full, "one", "echo", "y"];
    assert_eq!(engine.ctr(&run).success().line(), "y");

    // The keeper's own garbage collection leaves it what it keeps.
    keeper.import(&Image::busybox(IMAGE));
    keeper.ctr(&["images", "rm", "--sync", IMAGE]).success();
    let manifest = Digest::of(&image.manifest()).to_string();
    let get = engine.ctr(&["content", "get", &manifest]).success();
    assert_eq!(get.stdout.as_bytes(), image.manifest());

    // What it gives is checked.
    let file = blobs(&keeper).join(manifest.trim_start_matches("sha256:"));
    let good = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, vec![b'x'; good.len()]).unwrap();
    engine.ctr(&["content", "get", &manifest]).exited(1).complains("other bytes");
    std::fs::write(&file, good).unwrap();

    // A daemon that starts again finds it; an image takes it along.
    engine.stop_daemon(Signal::SIGTERM);
    engine.start_daemon();
    assert_eq!(sorted(&engine.ctr(&["content", "ls", "-q"]).success().stdout), pulled);
    engine.cli(&["rmi", &name]).success();
    wait_until("the blobs' end", || {
        let left = kept(&keeper);
        pulled.iter().all(|digest| !left.contains(digest))
    });
}

#[test]
fn containerd_keeps_content() {
    content_is_kept_by(Flavor::Containerd);
}

#[test]
fn another_berth_keeps_content() {
    content_is_kept_by(Flavor::Berth);
}

#[test]
fn content_that_nobody_keeps_is_refused() {
    let mut keeper = Engine::start();
    let Some(mut engine) = kept_by(&keeper) else { return };
    let registry = Registry::start();
    registry.push(&Image::busybox("box"));
    keeper.stop_daemon(Signal::SIGTERM);
    engine.stop_daemon(Signal::SIGTERM);
    engine.start_daemon();
    let pull = engine.cli(&["pull", &registry.reference("box")]).exited(1);
    pull.complains("content service kept");
    assert_eq!(engine.ctr(&["images", "ls", "-q"]).success().stdout, "");
    keeper.start_daemon();
    engine.cli(&["pull", &registry.reference("box")]).success();
    drop(engine);

    let Some(engine) = Engine::prepare() else { return };
    let plugin = "type = \"content\"\naddress = \"/nowhere\"\n";
    engine.configure(&format!("[proxy_plugins.a]\n{plugin}[proxy_plugins.b]\n{plugin}"));
    let refused = Finished::leaving(&mut engine.daemon_command());
    assert_ne!(refused.code, 0);
    refused.complains("one place");
    // It is started once more, to be tidied up after.
    engine.configure("");
}
