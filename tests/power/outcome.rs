//! What berth makes of a disk after a power cut.

use std::fs;
use std::ops::AddAssign;
use std::os::unix::fs::MetadataExt;

use berth_tests::{Engine, SmallDisk};

use crate::guest::Guest;
use crate::steps::{Known, Steps};

/// What may be gone in the end: blocks of directories and of files that say who runs.
const SLACK: u64 = 256 << 10;

/// What a number of cuts came to.
#[derive(Default)]
pub(crate) struct Outcome {
    /// After how many something had been acknowledged.
    acknowledged: usize,
    /// How many lost bytes.
    lost: usize,
    /// Images and containers that had been acknowledged and were there.
    kept: usize,
    /// Images that came or went, and were there; and that were not.
    moving: (usize, usize),
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.kept += other.kept;
        self.moving.0 += other.moving.0;
        self.moving.1 += other.moving.1;
    }
}

impl Outcome {
    /// Prints it, and asserts that `count` cuts were worth their name.
    pub(crate) fn report(&self, count: u64) {
        let Self { acknowledged, lost, kept, moving: (there, gone) } = self;
        println!(
            "{count} cuts: {acknowledged} after something was acknowledged, {lost} with bytes \
             lost; {kept} acknowledged things were there; of images under way {there} were there, \
             {gone} were not"
        );
        let count = count as usize;
        assert!(*acknowledged >= count * 3 / 4, "too few cuts came after an acknowledgement");
        assert!(*lost >= count / 5, "too few cuts lost anything");
    }
}

/// Starts berth on `disk` and asserts all that must hold.
pub(crate) fn judge(guest: &Guest, disk: &SmallDisk, steps: Steps, lost: usize) -> Outcome {
    let mut engine = Engine::prepare().expect("berth");
    engine.set_namespace(&guest.namespace);
    engine.set_root(disk.path().join("root"));
    engine.configure(&guest.config);
    engine.start_daemon();
    assert_whole(&engine);
    let mut outcome = Outcome {
        acknowledged: usize::from(steps.acknowledged() > 0),
        lost: usize::from(lost > 0),
        ..Outcome::default()
    };
    judge_images(guest, &engine, steps, &mut outcome);
    judge_containers(&engine, steps, &mut outcome);
    pull_all(guest, &engine);
    remove_all(guest, &engine);
    assert_space(&engine, disk);
    outcome
}

#[track_caller]
fn assert_whole(engine: &Engine) {
    let check = engine.cli(&["system", "check"]).success();
    assert!(check.stdout.contains(": all whole"), "{}", check.stdout);
}

/// The names of the images.
fn names(guest: &Guest) -> [(&'static str, String); 3] {
    let pulled = |name| guest.registry.reference(name) + ":latest";
    let loaded = "docker.io/library/three:latest".to_owned();
    [("one", pulled("one")), ("two", pulled("two")), ("three", loaded)]
}

fn judge_images(guest: &Guest, engine: &Engine, steps: Steps, outcome: &mut Outcome) {
    let listed = engine.ctr(&["images", "ls", "-q"]).success().stdout;
    for (name, full) in names(guest) {
        let there = listed.lines().any(|line| line == full);
        match steps.known(name) {
            Known::There => assert!(there, "{name} was acknowledged and is gone:\n{listed}"),
            Known::Gone => assert!(!there, "{name} was removed and is there:\n{listed}"),
            Known::Moving if there => outcome.moving.0 += 1,
            Known::Moving => outcome.moving.1 += 1,
        }
        if there {
            engine.cli(&["run", "--rm", &full, "sha256sum", "-c", "/sums"]).success();
            outcome.kept += usize::from(steps.known(name) == Known::There);
        }
    }
}

fn judge_containers(engine: &Engine, steps: Steps, outcome: &mut Outcome) {
    let listed = engine.cli(&["ps", "-a", "--format", "{{.Names}}"]).success().stdout;
    for name in steps.containers() {
        let there = listed.lines().any(|line| line == name);
        match steps.known(name) {
            Known::There => assert!(there, "{name} was acknowledged and is gone:\n{listed}"),
            Known::Gone => assert!(!there, "{name} was removed and is there:\n{listed}"),
            Known::Moving => {}
        }
        if there {
            engine.cli(&["start", name]).success();
            outcome.kept += usize::from(steps.known(name) == Known::There);
        }
    }
    // None but those that were begun.
    let unknown = listed.lines().find(|line| !steps.containers().contains(line));
    assert!(unknown.is_none(), "{listed}");
    for name in listed.lines() {
        engine.cli(&["rm", "-f", name]).success();
    }
}

/// Brings all images, whatever is there of them.
fn pull_all(guest: &Guest, engine: &Engine) {
    for name in ["one", "two"] {
        engine.cli(&["pull", &guest.registry.reference(name)]).success();
    }
    engine.cli(&["load", "-i", guest.archive.to_str().unwrap()]).success();
    assert_whole(engine);
    for (_, full) in names(guest) {
        engine.cli(&["run", "--rm", &full, "sha256sum", "-c", "/sums"]).success();
    }
}

/// Removes all images, and asserts that nothing is left of any.
fn remove_all(guest: &Guest, engine: &Engine) {
    for (_, full) in names(guest) {
        engine.cli(&["rmi", &full]).success();
    }
    for list in [["content", "ls", "-q"], ["leases", "ls", "-q"], ["containers", "ls", "-q"]] {
        assert_eq!(engine.ctr(&list).success().stdout, "", "{list:?}");
    }
    assert_eq!(engine.snapshots(), 0);
    for left in ["content/ingest", "content/blobs/sha256"] {
        let left = fs::read_dir(engine.root().join(left)).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert_whole(engine);
}

/// Asserts that the disk has nothing but the database.
fn assert_space(engine: &Engine, disk: &SmallDisk) {
    let database = fs::metadata(engine.root().join("berth.db")).unwrap().blocks() * 512;
    let used = disk.used();
    assert!(used <= database + SLACK, "{used} bytes are used, {database} by the database");
}
