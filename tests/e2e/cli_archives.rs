//! Images that leave: `berth push`, `save` and `load`.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use berth_tests::{Engine, Flavor, Image, Layer, Registry};
use berth_types::Digest;
use serde_json::json;

fn marked(name: &str, text: &str) -> Image {
    Image::busybox(name).layer(Layer::of_files(&[("mark", text.as_bytes())]))
}

fn mark(engine: &Engine, image: &str) -> String {
    engine.cli(&["run", "--rm", image, "cat", "/mark"]).success().stdout
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn cli_what_is_saved_is_loaded() {
    let Some(engine) = Engine::berth() else { return };
    let (one, two) = ("docker.io/library/one:1", "example.com/two:2");
    engine.import(&marked(one, "one"));
    engine.import(&marked(two, "two"));
    let file = engine.path("saved.tar");
    engine.cli(&["save", "-o", text(&file), "one:1", two, "one:1"]).success();
    engine.cli(&["rmi", one, two]).success();
    let loaded = engine.cli(&["load", "-i", text(&file)]).success().stdout;
    assert_eq!(loaded, "Loaded image: one:1\nLoaded image: example.com/two:2\n");
    assert_eq!((mark(&engine, "one:1"), mark(&engine, two)), ("one".into(), "two".into()));

    // By id, through pipes, and into containerd.
    let listed = engine.cli(&["images", "-q", "one"]).success();
    let piped = engine.path("piped.tar");
    let mut save = engine.cli_command(&["save", listed.line()]);
    assert!(save.stdout(File::create(&piped).unwrap()).status().unwrap().success());
    engine.cli(&["rmi", one]).success();
    let mut load = engine.cli_command(&["load", "-q"]);
    let output = load.stdin(File::open(&piped).unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"Loaded image: one:1\n");
    assert_eq!(mark(&engine, one), "one");
    let other = Engine::start_flavor(Flavor::Containerd);
    other.ctr(&["images", "import", text(&file)]).success();
    let names = other.ctr(&["images", "ls", "-q"]).success().stdout;
    assert_eq!(names, format!("{one}\n{two}\n"));
}

#[test]
fn cli_a_failed_save_or_load_leaves_nothing() {
    let Some(engine) = Engine::berth() else { return };
    let one = "docker.io/library/one:1";
    engine.import(&marked(one, "one"));
    let file = engine.path("saved.tar");
    fs::write(&file, "precious").unwrap();
    engine.cli(&["save", "-o", text(&file), "one:1", "none"]).exited(1).complains("No such image");
    let nowhere = engine.path("nowhere/saved.tar");
    engine.cli(&["save", "-o", text(&nowhere), one]).exited(1).complains("nowhere/saved.tar");
    engine.cli(&["save", "-o", "/dev/full", one]).exited(1).complains("No space left on device");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let left = fs::read_dir(engine.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_str().unwrap().contains("partial")));

    engine.cli(&["save", "-o", text(&file), one]).success();
    engine.cli(&["rmi", one]).success();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    engine.cli(&["load", "-i", text(&file)]).exited(1);
    fs::write(&file, "no archive").unwrap();
    engine.cli(&["load", "-i", text(&file)]).exited(1);
    engine.cli(&["load", "-i", text(&nowhere)]).exited(1).complains("nowhere/saved.tar");
    assert_eq!(engine.ctr(&["images", "ls", "-q"]).success().stdout, "");
    let empty = engine.cli_command(&["load"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(empty.status.code(), Some(1));
}

#[test]
fn cli_an_image_is_pushed() {
    let Some(engine) = Engine::berth() else { return };
    let (from, to) = (Registry::start(), Registry::start());
    let image = marked("box:1", "here");
    from.push(&image);
    engine.cli(&["pull", &from.reference("box:1")]).success();
    let name = to.reference("team/copy:2");
    engine.cli(&["tag", &from.reference("box:1"), &name]).success();
    let said = engine.cli(&["push", &name]).success().stdout;
    let manifest = image.manifest();
    let digest = Digest::of(&manifest);
    let first = format!("The push refers to repository [{}]\n", to.reference("team/copy"));
    let last = format!("2: digest: {digest} size: {}\n", manifest.len());
    assert!(said.starts_with(&first) && said.ends_with(&last), "{said}");
    let pushed = |said: &str, words: &str| {
        let of_layers = image.layers().iter().map(|layer| layer.digest());
        of_layers
            .filter(|digest| said.contains(&format!("{}: {words}", &digest.hex()[..12])))
            .count()
    };
    assert_eq!(pushed(&said, "Pushed"), 2, "{said}");
    let again = engine.cli(&["push", &name]).success().stdout;
    assert_eq!(pushed(&again, "Layer already exists"), 2, "{again}");
    assert_eq!(engine.cli(&["push", "-q", &name]).success().line(), name);

    engine.cli(&["rmi", &from.reference("box:1"), &name]).success();
    let pulled = engine.cli(&["pull", &name]).success().stdout;
    assert!(pulled.contains(&format!("Digest: {digest}")), "{pulled}");
    assert_eq!(mark(&engine, &name), "here");
    engine.cli(&["push", &to.reference("none")]).exited(1).complains("not found");
    engine.cli(&["push", &format!("box@{digest}")]).exited(1).complains("digest reference");
}

/// An index names images that are not here.
#[test]
fn cli_of_several_platforms_the_one_that_is_here_is_pushed() {
    let Some(engine) = Engine::berth() else { return };
    let (from, to) = (Registry::start(), Registry::start());
    let images = [marked("box", "amd"), marked("box", "arm").for_architecture("arm64")];
    let entries = images.each_ref().map(|image| {
        from.push(image);
        let manifest = image.manifest();
        let config: serde_json::Value = serde_json::from_slice(&image.config_document()).unwrap();
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(&manifest).to_string(), "size": manifest.len(),
            "platform": { "os": "linux", "architecture": config["architecture"] },
        })
    });
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries });
    from.push_manifest("box", "both", kind, index.to_string().into_bytes());
    let (source, name) = (from.reference("box:both"), to.reference("box:one"));
    engine.cli(&["pull", &source]).success();
    engine.cli(&["tag", &source, &name]).success();
    let said = engine.cli(&["push", &name]).success().stdout;
    let digest = Digest::of(&images[0].manifest());
    assert!(said.contains(&format!("one: digest: {digest}")), "{said}");
    engine.cli(&["rmi", &source, &name]).success();
    engine.cli(&["pull", &name]).success();
    assert_eq!(mark(&engine, &name), "amd");
}
