//! A disk that is too small: said, given back, and used again.

use berth_tests::{Engine, Finished, Image, Layer, Registry, SmallDisk, wait_until};

const BUSYBOX: &str = "docker.io/library/busybox:latest";

const MIB: usize = 1 << 20;

/// berth on a small disk.
fn on(disk: &SmallDisk) -> Option<Engine> {
    let mut engine = Engine::prepare()?;
    engine.set_root(disk.path().join("root"));
    engine.start_daemon();
    Some(engine)
}

/// An image that takes twice `layers` times 12 MiB: as it comes, and unpacked.
fn large(name: &str, layers: u64) -> Image {
    let layer = |seed| Layer::of_noise(&format!("noise-{seed}"), seed, 12 * MIB);
    (1..=layers).map(layer).fold(Image::busybox(name), Image::layer)
}

/// Asserts that a failed pull said why and left nothing.
fn assert_full(engine: &Engine, disk: &SmallDisk, free_before: u64, pull: Finished) {
    pull.complains("No space left on device");
    for list in [["content", "ls", "-q"], ["leases", "ls", "-q"], ["images", "ls", "-q"]] {
        assert_eq!(engine.ctr(&list).success().stdout, "", "{list:?}");
    }
    assert_eq!(engine.snapshots(), 0);
    for left in ["content/ingest", "content/blobs/sha256"] {
        let left = std::fs::read_dir(engine.root().join(left)).unwrap();
        assert_eq!(left.count(), 0);
    }
    // What the database grew by stays.
    let taken = free_before.saturating_sub(disk.free());
    assert!(taken < 4 * MIB as u64, "{taken} bytes are not given back");
}

#[test]
fn cli_a_full_disk_is_said_and_given_back() {
    let disk = SmallDisk::new(64);
    let Some(engine) = on(&disk) else { return };
    let registry = Registry::start();
    for image in [large("large", 4), large("fits", 1), Image::busybox("box")] {
        registry.push(&image);
    }
    let before = disk.free();
    let too_large = registry.reference("large");
    let pull = engine.cli(&["pull", &too_large]).exited(1);
    assert_full(&engine, &disk, before, pull);
    let run = engine.cli(&["run", "--rm", &too_large, "true"]).exited(125);
    assert_full(&engine, &disk, before, run);

    let fits = registry.reference("fits");
    engine.cli(&["run", "--rm", &fits, "true"]).success();
    engine.cli(&["rmi", &fits]).success();
    engine.cli(&["run", "--rm", &registry.reference("box"), "true"]).success();
}

#[test]
fn cli_a_removed_image_gives_room_to_the_next() {
    let disk = SmallDisk::new(80);
    let Some(engine) = on(&disk) else { return };
    let registry = Registry::start();
    let other = (11..13)
        .map(|seed| Layer::of_noise("other", seed, 12 * MIB))
        .fold(Image::busybox("second"), Image::layer);
    for image in [large("first", 2), other] {
        registry.push(&image);
    }
    let (first, second) = (registry.reference("first"), registry.reference("second"));
    engine.cli(&["run", "--rm", &first, "true"]).success();
    engine.cli(&["pull", &second]).exited(1).complains("No space left on device");
    engine.cli(&["rmi", &first]).success();
    engine.cli(&["run", "--rm", &second, "true"]).success();
}

#[test]
fn cli_a_container_runs_on_while_the_disk_of_its_log_is_full() {
    let disk = SmallDisk::new(32);
    let Some(engine) = on(&disk) else { return };
    engine.import(&Image::busybox(BUSYBOX));
    let script = "while [ ! -e /dev/shm/go ]; do sleep 0.05; done; seq 1 200000; exec sleep 1000";
    engine.cli(&["run", "-d", "--name", "one", BUSYBOX, "sh", "-c", script]).success();
    let balloon = disk.fill();
    engine.cli(&["exec", "one", "touch", "/dev/shm/go"]).success();
    wait_until("the container to have written all", || {
        let processes = engine.cli(&["exec", "one", "ps"]).success().stdout;
        processes.lines().any(|line| line.split_whitespace().skip(2).eq(["sleep", "1000"]))
    });
    std::fs::remove_file(&balloon).unwrap();

    // Notes of a loss are the container's standard error.
    let count = || {
        let logs = engine.cli(&["logs", "one"]).success();
        let kept = logs.stdout.lines().filter(|line| line.parse::<u32>().is_ok()).count();
        let notes = logs.stderr.lines().filter_map(|line| {
            let count =
                line.strip_prefix("berth: ")?.strip_suffix(" log entries were lost here")?;
            count.parse::<usize>().ok()
        });
        let lost = notes.sum::<usize>();
        assert!(kept + lost <= 200_000, "{kept} entries and {lost} lost");
        (kept, lost)
    };
    wait_until("the loss to be told", || {
        let (kept, lost) = count();
        lost > 0 && kept + lost == 200_000
    });
}

/// Fills the disk, and the database until it refuses.
fn fill(engine: &Engine, disk: &SmallDisk) -> std::path::PathBuf {
    let balloon = disk.fill();
    let label = format!("filling={}", "x".repeat(2000));
    for number in 0.. {
        assert!(number < 5000, "the database never refuses");
        let lease = engine.ctr(&["leases", "create", "--id", &format!("l{number}"), &label]);
        if lease.code != 0 {
            assert!(lease.stderr.contains("o space left on device"), "{}", lease.stderr);
            return balloon;
        }
    }
    unreachable!()
}

#[test]
fn cli_a_full_disk_is_emptied_by_removals() {
    let disk = SmallDisk::new(48);
    let Some(mut engine) = on(&disk) else { return };
    engine.import(&Image::busybox(BUSYBOX));
    engine.import(&Image::busybox("docker.io/library/other:latest"));
    for name in ["one", "two", "three"] {
        engine.cli(&["run", "-d", "--name", name, BUSYBOX, "sleep", "1000"]).success();
    }
    engine.cli(&["run", "-d", "--rm", "--name", "four", BUSYBOX, "sleep", "1000"]).success();
    let balloon = fill(&engine, &disk);

    engine.cli(&["run", "-d", BUSYBOX, "true"]).exited(125).complains("No space left on device");
    engine.cli(&["stop", "-t", "0", "one", "four"]).success();
    assert_eq!(engine.cli(&["wait", "one"]).success().stdout.trim(), "137");
    engine.stop_daemon(nix::sys::signal::Signal::SIGTERM);
    engine.start_daemon();
    assert_eq!(engine.cli(&["wait", "one"]).success().stdout.trim(), "137");
    engine.cli(&["rm", "one"]).success();
    engine.cli(&["rm", "-f", "two", "three"]).success();
    engine.cli(&["rmi", "other"]).success();
    let left = engine.cli(&["ps", "-aq"]).success().stdout;
    assert_eq!(left, "", "containers that were removed are there");

    std::fs::remove_file(&balloon).unwrap();
    engine.cli(&["run", "--rm", BUSYBOX, "true"]).success();
}

#[test]
fn cli_an_end_that_can_not_be_written_is_kept_until_it_can() {
    let disk = SmallDisk::without_promises(48);
    let Some(engine) = on(&disk) else { return };
    engine.import(&Image::busybox(BUSYBOX));
    for name in ["one", "two"] {
        let script = "trap 'exit 7' TERM; while :; do sleep 0.05; done";
        engine.cli(&["run", "-d", "--name", name, BUSYBOX, "sh", "-c", script]).success();
    }
    let balloon = fill(&engine, &disk);

    engine.cli(&["stop", "one", "two"]).success();
    for name in ["one", "two"] {
        assert_eq!(engine.cli(&["wait", name]).success().stdout.trim(), "7");
    }
    let shown = engine.cli(&["ps", "-a"]).success().stdout;
    assert_eq!(shown.matches("Exited (7)").count(), 2, "{shown}");
    engine.cli(&["start", "one"]).exited(1).complains("No space left on device");
    assert_eq!(engine.cli(&["wait", "one"]).success().stdout.trim(), "7");

    std::fs::remove_file(&balloon).unwrap();
    engine.cli(&["start", "one"]).success();
    engine.cli(&["stop", "one"]).success();
    assert_eq!(engine.cli(&["wait", "one"]).success().stdout.trim(), "7");
    wait_until("the other's end to be written", || {
        engine.ctr(&["task", "ls", "-q"]).success().stdout.is_empty()
    });
    assert_eq!(engine.cli(&["wait", "two"]).success().stdout.trim(), "7");
}
