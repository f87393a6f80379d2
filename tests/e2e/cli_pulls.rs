//! Pulls on their way: shown, stopped, killed, and taken up again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use berth_tests::{
    Asked, Engine, Gate, Image, Layer, Registry, Running, Terminal, noise, wait_until,
};
use berth_types::Digest;
use nix::sys::signal::Signal;

const MIB: u64 = 1 << 20;

/// The base and two layers of 8 MiB.
fn image() -> Image {
    let layer = |seed| Layer::of_noise(&format!("noise-{seed}"), seed, 8 << 20);
    Image::busybox("big").layer(layer(1)).layer(layer(2))
}

fn blob(engine: &Engine, layer: &Layer) -> PathBuf {
    engine.root().join("content/blobs/sha256").join(layer.digest().hex())
}

/// How much of a blob is there while it is fetched. An ingest is a directory with its data and
/// what it is about.
fn ingested(engine: &Engine, layer: &Layer) -> u64 {
    let ingests = fs::read_dir(engine.root().join("content/ingest")).unwrap().flatten();
    let digest = layer.digest().to_string();
    let mut of_layer = ingests.map(|entry| entry.path()).filter(|ingest| {
        fs::read_to_string(ingest.join("about")).is_ok_and(|about| about.contains(&digest))
    });
    let data = of_layer.next().and_then(|ingest| fs::metadata(ingest.join("data")).ok());
    data.map_or(0, |data| data.len())
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// Starts `berth` and waits until the base is there and the other layers are under way.
fn half_way(engine: &Engine, image: &Image, args: &[&str]) -> Running {
    let client = Running::start(&mut engine.cli_command(args), &engine.path("client"));
    let [base, large @ ..] = image.layers() else { unreachable!() };
    wait_until("the middle of the pull", || {
        blob(engine, base).exists() && large.iter().all(|layer| ingested(engine, layer) > MIB)
    });
    client
}

/// Asserts that nothing is left of a pull but what a later one goes on with.
fn assert_no_snapshots(engine: &Engine) {
    assert_eq!(engine.snapshots(), 0);
}

/// Asserts that `image` is there, whole, and that it goes without a trace.
fn assert_whole(engine: &Engine, name: &str) {
    for seed in 1..=2 {
        let file = format!("/noise-{seed}");
        let sum = engine.cli(&["run", "--rm", name, "sha256sum", &file]).success().stdout;
        assert!(sum.starts_with(Digest::of(&noise(seed, 8 << 20)).hex()), "{sum}");
    }
    engine.cli(&["rmi", name]).success();
    assert_no_snapshots(engine);
    assert_eq!(entries(&engine.root().join("content/blobs/sha256")), 0);
    assert_eq!(entries(&engine.root().join("content/ingest")), 0);
    assert_eq!(engine.ctr(&["leases", "ls", "-q"]).success().stdout, "");
}

#[test]
fn cli_a_killed_pull_goes_on_where_it_was() {
    let Some(mut engine) = Engine::berth() else { return };
    let registry = Registry::start();
    let image = image();
    registry.push(&image);
    let gate = Gate::start(&registry, 4 * MIB);
    let name = gate.reference("big");
    let mut client = half_way(&engine, &image, &["pull", &name]);
    engine.stop_daemon(Signal::SIGKILL);
    wait_until("the client to end", || client.has_ended());
    let told = fs::read_to_string(engine.path("client")).unwrap();
    assert!(told.contains("connection to the berth daemon was lost"), "{told}");

    let there: BTreeMap<_, _> = image.layers()[1..]
        .iter()
        .map(|layer| (layer.digest().to_string(), ingested(&engine, layer)))
        .collect();
    let asked_before = gate.asked().len();
    gate.open();
    engine.start_daemon();
    assert_no_snapshots(&engine);
    engine.cli(&["pull", &name]).success();
    let asked = gate.asked().split_off(asked_before);
    let asked: BTreeMap<_, _> =
        asked.into_iter().map(|Asked { digest, from }| (digest, from)).collect();
    assert_eq!(asked, there);
    assert_eq!(gate.asked().len(), asked_before + 2);
    assert_whole(&engine, &name);
}

#[test]
fn cli_fifty_clients_pull_an_image_once() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    let image = image();
    registry.push(&image);
    let name = registry.reference("big");
    let log = engine.path("client");
    let mut clients: Vec<_> =
        (0..50).map(|_| Running::start(&mut engine.cli_command(&["pull", &name]), &log)).collect();
    wait_until("the clients to end", || clients.iter_mut().all(Running::has_ended));
    let told = fs::read_to_string(&log).unwrap();
    assert_eq!(told.matches("Status: ").count(), 50, "{told}");
    // The layers and the config.
    assert_eq!(registry.blob_fetches(), image.layers().len() + 1);
    // Directories are numbered as they are made: none was made in vain.
    let newest = fs::read_dir(engine.root().join("snapshots/erofs")).unwrap();
    let newest = newest.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let newest = newest.map(|name| name.parse::<usize>().unwrap()).max();
    assert_eq!(newest, Some(image.layers().len()));
    assert_whole(&engine, &name);
}

#[test]
fn cli_a_stop_does_not_wait_for_pulls() {
    let Some(mut engine) = Engine::berth() else { return };
    let registry = Registry::start();
    let image = image();
    registry.push(&image);
    // Both layers would take hours.
    let gate = Gate::start(&registry, 4 * MIB);
    let name = gate.reference("big");
    for command in [&["pull", &name][..], &["run", "--rm", &name, "true"]] {
        let mut client = half_way(&engine, &image, command);
        gate.slow(1000);
        assert_eq!(engine.stop_daemon(Signal::SIGTERM), 0, "{}", engine.log());
        wait_until("the client to end", || client.has_ended());
        assert_eq!(engine.snapshots(), 0);
        engine.start_daemon();
        gate.slow(4 * MIB);
    }
    gate.open();
    engine.cli(&["pull", &name]).success();
    assert_whole(&engine, &name);
}

/// What a terminal shows in the end, and how often a word was drawn on the way.
fn drawn(terminal: &Terminal, word: &str) -> (Vec<String>, usize) {
    let mut screen = vt100::Parser::new(33, 99, 0);
    let shown = terminal.shown();
    screen.process(shown.as_bytes());
    let rows = screen.screen().rows(0, 99).map(|row| row.trim_end().to_owned());
    (rows.filter(|row| !row.is_empty()).collect(), shown.matches(word).count())
}

#[test]
fn cli_a_pull_on_a_terminal_draws_a_bar_for_each_layer() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    let image = image();
    registry.push(&image);
    let gate = Gate::start(&registry, 8 * MIB);
    let name = gate.reference("big");
    let mut terminal = Terminal::start(engine.cli_command(&["pull", &name]));
    assert_eq!(terminal.ends(), 0, "{}", terminal.shown());
    let (rows, downloading) = drawn(&terminal, "Downloading [");
    assert!(downloading > 4, "{}", terminal.shown());
    let layer = |layer: &Layer| format!("{}: Pull complete", &layer.digest().hex()[..12]);
    let mut expected =
        vec!["Using default tag: latest".to_owned(), "latest: Pulling from big".to_owned()];
    expected.extend(image.layers().iter().map(layer));
    assert_eq!(rows[..expected.len()], expected, "{rows:#?}");
    assert!(rows[expected.len()].starts_with("Digest: sha256:"), "{rows:#?}");

    // Off a terminal there are plain lines, one for each change.
    engine.cli(&["rmi", &name]).success();
    let plain = engine.cli(&["pull", &name]).success().stdout;
    assert!(!plain.contains('\x1b') && !plain.contains('\r'), "{plain}");
    for layer in image.layers() {
        let start = format!("{}: ", &layer.digest().hex()[..12]);
        let lines: Vec<_> = plain.lines().filter_map(|line| line.strip_prefix(&start)).collect();
        assert_eq!(lines.last(), Some(&"Pull complete"), "{plain}");
        assert!(lines.len() <= 4, "{plain}");
    }
}
