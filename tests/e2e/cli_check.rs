//! What berth keeps is verified and repaired: blobs, layers, records, files.

use std::fs;
use std::path::{Path, PathBuf};

use berth_tests::{Engine, Finished, Gate, Image, Layer, Registry, Running, wait_until};
use nix::sys::signal::Signal;

const BUSYBOX: &str = "docker.io/library/busybox:latest";

const MIB: u64 = 1 << 20;

/// A way to damage a file.
type Harm = fn(&Path);

/// Ways, and what they are called.
const HARMS: [(Harm, &str); 4] =
    [(flip, "digest differs"), (empty, "zero bytes"), (shorten, "instead of"), (remove, "missing")];

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn empty(path: &Path) {
    fs::write(path, "").unwrap();
}

fn shorten(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// The base and a layer of 2 MiB.
fn image(name: &str) -> Image {
    Image::busybox(name).layer(Layer::of_noise("noise", 7, 2 << 20))
}

fn blobs(engine: &Engine) -> Vec<PathBuf> {
    files(&engine.root().join("content/blobs/sha256"))
}

/// The images of layers, the lowest first.
fn layers(engine: &Engine) -> Vec<PathBuf> {
    let directories = files(&engine.root().join("snapshots/erofs"));
    let images = directories.into_iter().map(|directory| directory.join("layer.erofs"));
    images.filter(|image| image.exists()).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn check(engine: &Engine) -> Finished {
    engine.cli(&["system", "check"])
}

fn repair(engine: &Engine) -> Finished {
    engine.cli(&["system", "check", "--repair"])
}

#[track_caller]
fn assert_whole(engine: &Engine) {
    let whole = check(engine).success();
    assert!(whole.stdout.ends_with("all whole\n"), "{}", whole.stdout);
}

/// Asserts that a check finds one thing and says this of it, that a repair mends it, and that
/// nothing is damaged afterwards.
#[track_caller]
fn assert_mended(engine: &Engine, words: &[&str], how: &str) {
    let found = check(engine).exited(1).stdout;
    assert!(found.contains(" 1 damaged;"), "{found}");
    for word in words {
        assert!(found.lines().next().unwrap().contains(word), "no {word:?} in {found}");
    }
    let told = repair(engine).success().stdout;
    assert!(told.contains(how) && told.contains("1 damaged, 1 repaired"), "{told}");
    assert_whole(engine);
}

#[test]
fn cli_each_damaged_blob_is_named_and_fetched_again() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    registry.push(&image("mine"));
    let name = registry.reference("mine");
    engine.cli(&["pull", &name]).success();
    assert_whole(&engine);
    // Manifest, config and two layers.
    assert_eq!(blobs(&engine).len(), 4);
    for path in blobs(&engine) {
        let good = fs::read(&path).unwrap();
        let hex = path.file_name().unwrap().to_str().unwrap();
        let how = format!("fetched again from {}", registry.reference("mine"));
        for (harm, fault) in HARMS {
            harm(&path);
            let blob = format!("blob sha256:{hex}: ");
            // What uses it can't be told once the documents above are damaged, but for their own.
            let words = [&blob, fault, &format!("; used by {name}:latest")];
            assert_mended(&engine, &words, &how);
            assert_eq!(fs::read(&path).unwrap(), good);
        }
    }
    engine.cli(&["run", "--rm", &name, "true"]).success();
}

#[test]
fn cli_each_damaged_layer_is_named_and_made_again() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    registry.push(&image("mine"));
    let name = registry.reference("mine");
    engine.cli(&["pull", &name]).success();
    for number in 0..2 {
        for (harm, fault) in HARMS.into_iter().filter(|(_, fault)| *fault != "instead of") {
            let path = &layers(&engine)[number];
            let good = fs::read(path).unwrap();
            harm(path);
            let words = ["layer sha256:", ", erofs): ", fault, &format!("; used by {name}:latest")];
            assert_mended(&engine, &words, "made again from its blob");
            assert!(layers(&engine).iter().any(|path| fs::read(path).unwrap() == good));
        }
    }
    // Both at once, with the blobs that they are made of.
    for path in layers(&engine).iter().chain(&blobs(&engine)) {
        empty(path);
    }
    let found = check(&engine).exited(1).stdout;
    assert!(found.contains("6 damaged"), "{found}");
    let told = repair(&engine).success().stdout;
    assert!(told.contains("6 damaged, 6 repaired"), "{told}");
    assert_whole(&engine);
    engine.cli(&["run", "--rm", &name, "true"]).success();
}

/// Layers in every form, one of them a link to a file of the one below it.
#[test]
fn cli_layers_of_every_form_are_made_again() {
    let link = Layer::new(|tar| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_mode(0o644);
        header.set_size(0);
        tar.append_link(&mut header, "linked", "noise").unwrap();
    });
    let registry = Registry::start();
    registry.push(&image("mine").layer(link));
    let name = registry.reference("mine");
    for snapshotter in ["erofs", "overlayfs", "native"] {
        let Some(mut engine) = Engine::prepare() else { return };
        engine.configure(&format!("snapshotter = \"{snapshotter}\"\n"));
        engine.start_daemon();
        let sums = || engine.cli(&["run", "--rm", &name, "sha256sum", "/noise", "/linked"]);
        let before = sums().success().stdout;
        for number in 0..3 {
            let own = &files(&engine.root().join("snapshots").join(snapshotter))[number];
            match snapshotter {
                "erofs" => fs::remove_file(own.join("layer.erofs")).unwrap(),
                _ => fs::remove_dir_all(own.join("fs")).unwrap(),
            }
            let words = ["layer sha256:", &format!(", {snapshotter}): missing; used by {name}")];
            assert_mended(&engine, &words, "made again from its blob");
        }
        assert_eq!(sums().success().stdout, before, "{snapshotter}");
        engine.cli(&["rmi", &name]).success();
        assert_eq!(engine.snapshots(), 0, "{snapshotter}");
    }
}

#[test]
fn cli_a_layer_is_replaced_under_a_running_container() {
    let Some(mut engine) = Engine::berth() else { return };
    let registry = Registry::start();
    registry.push(&image("mine"));
    let name = registry.reference("mine");
    let sum =
        |container: &str| engine.cli(&["exec", container, "sha256sum", "/noise"]).success().stdout;
    engine.cli(&["run", "-d", "--name", "one", &name, "sleep", "1000"]).success();
    let before = sum("one");
    let id = engine.cli(&["ps", "-q", "--no-trunc"]).success().line().to_owned();
    let top = layers(&engine).pop().unwrap();
    let good = fs::read(&top).unwrap();
    // What the container has read it keeps in memory: the file is another one.
    fs::remove_file(&top).unwrap();
    fs::write(&top, vec![0; good.len()]).unwrap();
    let found = check(&engine).exited(1).stdout;
    assert!(found.contains("digest differs"), "{found}");
    let told = repair(&engine).success().stdout;
    assert!(told.contains(&format!("berth restart {id}")), "{told}");
    assert_whole(&engine);
    assert_eq!(sum("one"), before, "the running container goes on with what it has mounted");
    engine.cli(&["run", "-d", "--name", "two", &name, "sleep", "1000"]).success();
    assert_eq!(sum("two"), before);
    engine.cli(&["restart", "-t", "0", "one"]).success();
    assert_eq!(sum("one"), before);
    engine.stop_daemon(Signal::SIGKILL);
    engine.start_daemon();
    assert_whole(&engine);
    for container in ["one", "two"] {
        let sum = engine.cli(&["exec", container, "sha256sum", "/noise"]).success().stdout;
        assert_eq!(sum, before);
        engine.cli(&["rm", "-f", container]).success();
    }
    engine.cli(&["rmi", &name]).success();
    assert_eq!(engine.snapshots(), 0, "the old layers are gone too");
}

#[test]
fn cli_what_an_image_lacks_is_fetched() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    registry.push(&image("mine"));
    let name = registry.reference("mine");
    engine.cli(&["pull", &name]).success();
    for path in blobs(&engine) {
        let digest = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
        engine.ctr(&["content", "rm", &digest]).success();
        let found = check(&engine).exited(1).stdout;
        assert!(found.contains(&format!("blob {digest}: missing; used by {name}")), "{found}");
        let told = repair(&engine).success().stdout;
        assert!(told.contains("1 damaged, 1 repaired"), "{told}");
        assert_whole(&engine);
    }
    engine.cli(&["rmi", &name]).success();
    assert_whole(&engine);
    assert!(blobs(&engine).is_empty());
}

#[test]
fn cli_files_of_no_record_are_removed() {
    let Some(engine) = Engine::berth() else { return };
    engine.import(&Image::busybox(BUSYBOX));
    engine.cli(&["run", "-d", "--name", "one", BUSYBOX, "sleep", "1000"]).success();
    assert_whole(&engine);
    let root = engine.root();
    let directories = ["snapshots/erofs/999/fs", "snapshots/overlayfs/x", "content/ingest/half"];
    for directory in directories {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let strays = [
        "content/blobs/sha256/readme",
        "content/blobs/other",
        "snapshots/erofs/readme",
        "snapshots/native/7",
    ];
    for file in strays {
        fs::write(root.join(file), "").unwrap();
    }
    let wrong = format!("content/blobs/sha256/{}", "0".repeat(64));
    fs::write(root.join(&wrong), "wrong").unwrap();
    let found = check(&engine).exited(1).stdout;
    for stray in strays.into_iter().chain(["snapshots/erofs/999", "content/ingest/half"]) {
        let line = format!("file {}: no record names it", root.join(stray).display());
        assert!(found.contains(&line), "{line}:\n{found}");
    }
    assert!(found.contains(&format!("blob sha256:{}: digest differs", "0".repeat(64))), "{found}");
    let told = repair(&engine).success().stdout;
    assert!(told.contains("8 damaged, 8 repaired"), "{told}");
    assert_whole(&engine);
    for stray in strays.into_iter().chain(directories).chain([wrong.as_str()]) {
        assert!(!root.join(stray).exists(), "{stray}");
    }
    engine.cli(&["exec", "one", "true"]).success();
}

#[test]
fn cli_what_can_not_be_repaired_is_said() {
    let Some(engine) = Engine::berth() else { return };
    engine.import(&Image::busybox(BUSYBOX));
    let mut registry = Registry::start();
    registry.push(&image("mine"));
    let name = registry.reference("mine");
    engine.cli(&["pull", &name]).success();
    for path in blobs(&engine) {
        empty(&path);
    }
    registry.stop();
    let told = repair(&engine).exited(1).stdout;
    assert!(told.contains(&format!("import it again (berth -n {} rmi", engine.namespace())));
    assert!(told.contains("try again when the registry can be reached"), "{told}");
    // What is said helps.
    for name in [&name, BUSYBOX] {
        engine.cli(&["rmi", name]).success();
    }
    assert_whole(&engine);
    engine.import(&Image::busybox(BUSYBOX));
    engine.cli(&["run", "--rm", BUSYBOX, "true"]).success();
    assert_whole(&engine);
}

/// A pull, and containers that come and go, while everything is looked at again and again.
#[test]
fn cli_nothing_under_way_is_damaged() {
    let Some(engine) = Engine::berth() else { return };
    engine.import(&Image::busybox(BUSYBOX));
    let registry = Registry::start();
    registry.push(&image("mine").layer(Layer::of_noise("more", 8, 4 << 20)));
    let gate = Gate::start(&registry, 2 * MIB);
    let name = gate.reference("mine");
    let churn = "for n in 1 2 3 4 5 6 7 8; do $BERTH run --rm $IMAGE true || exit; done";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", churn]).env("IMAGE", BUSYBOX);
    let berth = engine.cli_command(&[]);
    let words = std::iter::once(berth.get_program()).chain(berth.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    command.env("BERTH", words.join(" "));
    let log = engine.path("client");
    let mut runs = Running::start(&mut command, &log);
    let mut checks = 0;
    for _ in 0..3 {
        let mut pull = Running::start(&mut engine.cli_command(&["pull", &name]), &log);
        while !pull.has_ended() {
            assert_whole(&engine);
            checks += 1;
        }
        engine.cli(&["rmi", &name]).success();
        assert_whole(&engine);
    }
    assert!(checks > 6, "{checks} checks");
    wait_until("the containers to end", || runs.has_ended());
    assert!(!fs::read_to_string(&log).unwrap().contains("rror"), "{}", engine.log());
    assert_whole(&engine);
}

/// An image for several platforms is whole with one of them, while another comes, and when that
/// did not come; and not without any.
#[test]
fn cli_an_image_need_not_be_here_for_all_platforms() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    let other = if cfg!(target_arch = "x86_64") { "arm64" } else { "amd64" };
    let foreign = Image::busybox("mine").layer(Layer::of_noise("more", 8, 4 << 20));
    registry.push_index("mine", &[image("mine"), foreign.for_architecture(other)]);
    let gate = Gate::start(&registry, 2 * MIB);
    let name = gate.reference("mine");
    engine.cli(&["pull", &name]).success();
    assert_whole(&engine);
    let platform = format!("linux/{other}");
    let mut pull = Running::start(
        &mut engine.cli_command(&["pull", "--platform", &platform, &name]),
        &engine.path("client"),
    );
    let asked = gate.asked().len();
    wait_until("the layers to come", || gate.asked().len() > asked + 1);
    while !pull.has_ended() {
        assert_whole(&engine);
    }
    assert_whole(&engine);
    let list = || engine.ctr(&["content", "ls"]).success().stdout;
    let manifests = manifests_in(&list());
    assert_eq!(manifests.len(), 2);
    for manifest in &manifests {
        engine.ctr(&["content", "rm", manifest]).success();
    }
    let found = check(&engine).exited(1).stdout;
    assert!(found.contains(": missing; used by") && found.contains(" 1 damaged;"), "{found}");
    let told = repair(&engine).success().stdout;
    assert!(told.contains("1 damaged, 1 repaired"), "{told}");
    assert_whole(&engine);
    engine.cli(&["run", "--rm", &name, "true"]).success();
}

/// The manifests in a list of content: what has a layer's label.
fn manifests_in(list: &str) -> Vec<String> {
    let manifests = list.lines().filter(|line| line.contains("containerd.io/gc.ref.content.l.0"));
    manifests.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}
