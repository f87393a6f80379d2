//! Images of `berth`: `pull`, `images`, `tag`, `rmi`, `inspect`, and runs that pull.

use berth_tests::{Engine, Image, Layer, Registry, wait_until};
use berth_types::Digest;
use serde_json::Value;

fn list(engine: &Engine) -> Vec<Value> {
    let list = engine.cli(&["images", "--format", "json"]).success().stdout;
    list.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn cli_an_image_is_pulled_listed_and_removed() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    registry.push(&Image::busybox("sys/box:1").layer(Layer::of_files(&[("greeting", b"hello")])));
    let name = registry.reference("sys/box:1");
    let pull = engine.cli(&["pull", &name]).success().stdout;
    assert!(pull.contains("Pulling from sys/box"), "{pull}");
    assert_eq!(pull.matches("Pull complete").count(), 2, "{pull}");
    assert!(pull.contains(&format!("Status: Downloaded newer image for {name}")), "{pull}");
    let again = engine.cli(&["pull", &name]).success().stdout;
    assert!(again.contains(&format!("Status: Image is up to date for {name}")), "{again}");

    let images = list(&engine);
    assert_eq!(images.len(), 1, "{images:?}");
    assert_eq!(images[0]["Repository"], registry.reference("sys/box"));
    assert_eq!(images[0]["Tag"], "1");
    assert_eq!(images[0]["Platform"], "linux/amd64");
    assert_eq!(engine.cli(&["run", "--rm", &name, "cat", "/greeting"]).success().stdout, "hello");

    let inspected = engine.cli(&["inspect", &name]).success().stdout;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected[0]["Config"]["Env"][1], "FLAVOUR=busybox");
    assert_eq!(inspected[0]["RootFS"]["Layers"].as_array().map(Vec::len), Some(2));

    let removed = engine.cli(&["rmi", &name]).success().stdout;
    assert!(removed.contains(&format!("Untagged: {name}")), "{removed}");
    assert!(removed.contains("Deleted: sha256:"), "{removed}");
    assert_eq!(list(&engine), Vec::<Value>::new());
    engine.cli(&["rmi", &name]).exited(1).complains("No such image");
}

#[test]
fn cli_a_pull_says_what_it_did() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    registry.push(&Image::busybox("box:1"));
    registry.push(&Image::busybox("box:2").config("User", "user".into()));
    let pull = |name: &str| engine.cli(&["pull", name]).success().stdout;
    let (one, two) = (registry.reference("box:1"), registry.reference("box:2"));
    assert!(pull(&one).contains("Status: Downloaded newer image"));
    // All its layers are here, and yet it is new.
    let told = pull(&two);
    assert!(told.contains("Already exists") && told.contains("Status: Downloaded"), "{told}");
    assert!(pull(&two).contains("Status: Image is up to date"));
    let digest = told.lines().find_map(|line| line.strip_prefix("Digest: ")).unwrap();
    let told = pull(&registry.reference(&format!("box@{digest}")));
    assert!(told.starts_with(&format!("{digest}: Pulling from box\n")), "{told}");
    assert!(!told.contains("latest"), "{told}");
}

#[test]
fn cli_a_run_pulls_what_is_missing() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    registry.push(&Image::busybox("box"));
    let name = registry.reference("box");
    engine
        .cli(&["run", "--rm", "--pull", "never", &name, "true"])
        .exited(125)
        .complains("No such image");
    let run = engine.cli(&["run", "--rm", &name, "echo", "x"]).success();
    assert_eq!(run.stdout, "x\n");
    let told = format!("Unable to find image '{name}:latest' locally\nlatest: Pulling from box\n");
    assert!(run.stderr.starts_with(&told), "{}", run.stderr);
    assert!(run.stderr.contains("Pull complete"), "{}", run.stderr);
    let fetches = registry.blob_fetches();
    assert_eq!(engine.cli(&["run", "--rm", &name, "echo", "x"]).success().stderr, "");
    engine.cli(&["run", "--rm", "--pull", "always", &name, "true"]).success();
    assert_eq!(registry.blob_fetches(), fetches);
    engine.cli(&["rmi", &name]).success();
    let created = engine.cli(&["create", "--name", "one", &name, "true"]).success();
    assert!(created.stderr.starts_with(&told), "{}", created.stderr);
    assert_eq!(created.line().len(), 64);
    engine.cli(&["rm", "one"]).success();
    engine.cli(&["rmi", &name]).success();
    let run = engine.cli(&["run", "-d", "--rm", &name, "true"]).success();
    assert!(run.stderr.starts_with(&told), "{}", run.stderr);
    wait_until("its end", || engine.cli(&["ps", "-a", "-q"]).success().line() == "");
}

#[test]
fn cli_images_that_cannot_be_had_are_told_from_each_other() {
    let Some(engine) = Engine::berth() else { return };
    let mut registry = Registry::start();
    registry.push(&Image::busybox("foreign").for_architecture("s390x"));
    let unknown = registry.reference("unknown");
    let words = format!("manifest for {unknown}:latest not found: registry {}", registry.host());
    engine.cli(&["pull", &unknown]).exited(1).complains(&words);
    engine.cli(&["run", "--rm", &unknown]).exited(125).complains(&words);
    let foreign = registry.reference("foreign");
    engine.cli(&["run", "--rm", &foreign]).exited(125).complains("linux/s390x");
    engine.cli(&["pull", "--platform", "linux/s390x", &foreign]).success();
    engine.cli(&["run", "--rm", &foreign]).exited(125).complains("linux/s390x");
    let image = Image::busybox("foreign").for_architecture("s390x");
    let id = Digest::of(&image.config_document()).to_string();
    let listed = engine.cli(&["images", "-q", "--no-trunc"]).success();
    assert_eq!(listed.line(), id);
    assert_eq!(engine.cli(&["inspect", "-f", "{{.Id}}", &foreign]).success().line(), id);
    registry.stop();
    engine.cli(&["pull", &unknown]).exited(1).complains("refused");
    engine.cli(&["run", "--rm", &unknown]).exited(125).complains("refused");
    for (reference, path) in [("UPPER/Case", "Case"), ("Upper", "library/Upper")] {
        let words = format!("invalid reference format: repository name ({path}) must be lowercase");
        engine.cli(&["pull", reference]).exited(1).complains(&words);
        engine.cli(&["run", "--rm", reference]).exited(125).complains(&words);
    }
    assert_eq!(engine.cli(&["ps", "-a", "-q"]).success().line(), "");
}

#[test]
fn cli_damaged_and_truncated_layers_leave_nothing() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    let good = Layer::of_files(&[("good", b"good")]);
    let image = Image::busybox("box").layer(good.clone());
    registry.push(&image);
    let name = registry.reference("box");
    for harm in [Registry::damage, Registry::truncate] {
        harm(&registry, good.blob());
        engine.cli(&["run", "--rm", &name, "true"]).exited(125).complains(good.digest().as_str());
        assert_eq!(list(&engine), Vec::<Value>::new());
        assert_eq!(engine.cli(&["ps", "-a", "-q"]).success().line(), "");
        assert_eq!(engine.ctr(&["content", "ls", "-q"]).success().line(), "");
        assert_eq!(engine.snapshots(), 0);
        registry.mend(good.blob());
    }
    engine.cli(&["run", "--rm", &name, "true"]).success();
}

#[test]
fn cli_names_come_and_go_and_the_last_takes_the_image() {
    let Some(engine) = Engine::berth() else { return };
    engine.import(&Image::busybox("docker.io/library/busybox:latest"));
    engine.cli(&["tag", "busybox", "example.org/mine:2"]).success();
    engine.cli(&["tag", "nothing", "mine"]).exited(1).complains("No such image: nothing");
    engine.cli(&["tag", "busybox", "Mine"]).exited(1);
    let images = list(&engine);
    assert_eq!(images.len(), 2);
    assert_eq!(images[0]["ID"], images[1]["ID"]);
    let id = images[0]["ID"].as_str().unwrap();
    engine.cli(&["run", "--rm", id, "true"]).success();
    engine.cli(&["rmi", id]).exited(1).complains("referenced in multiple repositories");
    let untagged = engine.cli(&["rmi", "busybox"]).success().stdout;
    assert_eq!(untagged, "Untagged: busybox:latest\n");

    engine.cli(&["create", "--name", "one", "example.org/mine:2", "sleep", "1000"]).success();
    engine.cli(&["rmi", id]).exited(1).complains("must be forced");
    engine.cli(&["start", "one"]).success();
    engine.cli(&["rmi", "-f", id]).exited(1).complains("used by running container");
    engine.cli(&["stop", "-t", "0", "one"]).success();
    engine.cli(&["rmi", "-f", id]).success();
    assert_eq!(list(&engine), Vec::<Value>::new());
    // A container keeps what it is made of.
    engine.cli(&["start", "one"]).success();
    engine.cli(&["rm", "-f", "one"]).success();
}

/// However busy the machine is, who was told that a container has stopped finds it so.
#[test]
fn cli_an_image_may_go_once_its_container_has_stopped() {
    let Some(engine) = Engine::berth() else { return };
    std::thread::scope(|scope| {
        for client in 0..6 {
            let engine = &engine;
            scope.spawn(move || {
                let name = format!("example.com/box:{client}");
                let own = Layer::of_files(&[("own", name.as_bytes())]);
                let archive = engine.path(format!("{client}.tar"));
                std::fs::write(&archive, Image::busybox(&name).layer(own).archive()).unwrap();
                for _ in 0..4 {
                    engine.cli(&["load", "-i", archive.to_str().unwrap()]).success();
                    let id = engine.cli(&["run", "-d", &name, "sleep", "1000"]).success();
                    engine.cli(&["stop", "-t", "0", id.line()]).success();
                    engine.cli(&["rmi", "-f", &name]).success();
                    engine.cli(&["rm", id.line()]).success();
                }
            });
        }
    });
}

#[test]
fn cli_many_runs_of_a_missing_image_fetch_it_once() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    registry.push(&Image::busybox("box"));
    let name = registry.reference("box");
    let mut clients: Vec<_> = (0..5)
        .map(|_| engine.cli_command(&["run", "--rm", &name, "true"]).spawn().unwrap())
        .collect();
    for client in &mut clients {
        assert!(client.wait().unwrap().success());
    }
    assert_eq!(registry.blob_fetches(), 2);
    wait_until("nothing to be left", || engine.cli(&["ps", "-a", "-q"]).success().line() == "");
}
