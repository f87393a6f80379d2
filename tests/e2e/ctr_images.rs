//! Images through Debian's `ctr`.

use berth_tests::{Engine, Image, Registry};

#[test]
fn pull_list_tag_and_remove() {
    let registry = Registry::start();
    let name = registry.reference("demo:one");
    registry.push(&Image::busybox("demo:one"));
    let engine = Engine::start();

    engine.ctr(&["images", "pull", "--plain-http", &name]).success();
    assert_eq!(engine.ctr(&["images", "ls", "-q"]).success().line(), name);
    engine.ctr(&["images", "tag", &name, "demo:two"]).success();
    assert_eq!(engine.ctr(&["images", "ls", "-q"]).success().stdout.lines().count(), 2);

    engine.ctr(&["images", "rm", "--sync", &name]).success();
    assert_eq!(engine.ctr(&["images", "ls", "-q"]).success().line(), "demo:two");
    engine.ctr(&["run", "--rm", "demo:two", "c", "echo", "still here"]).success();
    engine.ctr(&["images", "rm", "--sync", "demo:two"]).success();
    assert_eq!(engine.ctr(&["content", "ls", "-q"]).success().line(), "");
    assert_eq!(engine.ctr(&["snapshots", "ls"]).success().stdout.lines().count(), 1);
}

#[test]
fn import_then_read_content() {
    let engine = Engine::start();
    let image = Image::busybox("docker.io/library/imported:latest");
    engine.import(&image);
    assert_eq!(engine.ctr(&["images", "ls", "-q"]).success().line(), image.name());
    let digest = berth_types::Digest::of(&image.config_document()).to_string();
    let config = engine.ctr(&["content", "get", &digest]).success();
    assert_eq!(config.stdout.as_bytes(), image.config_document());
    let tree = engine.ctr(&["snapshots", "tree"]).success();
    assert_eq!(tree.stdout.lines().count(), 1, "{}", tree.stdout);
}

#[test]
fn namespaces_do_not_see_each_other() {
    let engine = Engine::start();
    engine.import(&Image::busybox("docker.io/library/mine:latest"));
    let address = engine.address().display().to_string();
    let other = format!("{}-b", engine.namespace());
    let ctr = |args: &[&str]| {
        let mut all = vec!["--address", &address, "--namespace", &other];
        all.extend_from_slice(args);
        berth_tests::Finished::run("ctr", &all, b"")
    };
    assert_eq!(ctr(&["images", "ls", "-q"]).success().line(), "");
    assert_eq!(ctr(&["content", "ls", "-q"]).success().line(), "");
    ctr(&["images", "rm", "docker.io/library/mine:latest"]);
    assert_eq!(engine.ctr(&["images", "ls", "-q"]).success().stdout.lines().count(), 1);
}
