//! Pulls that run out of space or inodes anywhere on their way.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use berth_tests::{Engine, Image, Layer, Registry, SmallDisk};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{FallocateFlags, fallocate};

/// What may be gone after a pull that failed: a few blocks of directories that grew.
const SLACK: u64 = 8 << 10;

fn on(disk: &SmallDisk, snapshotter: &str) -> Option<Engine> {
    let mut engine = Engine::prepare()?;
    engine.set_root(disk.path().join("root"));
    engine.configure(&format!("snapshotter = \"{snapshotter}\"\n"));
    engine.start_daemon();
    Some(engine)
}

/// The base, layers of one file, and one of many files.
fn image() -> Image {
    let files: Vec<_> = (0..200).map(|number| (format!("d/{number}"), vec![b'x'; 5000])).collect();
    let files: Vec<_> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let noise = (1..9).map(|seed| Layer::of_noise(&format!("noise-{seed}"), seed, 512 << 10));
    noise.fold(Image::busybox("image"), Image::layer).layer(Layer::of_files(&files))
}

/// Takes space so that `left` bytes are free.
fn leave(disk: &SmallDisk, balloon: &Path, left: u64) {
    let file = fs::File::create(balloon).unwrap();
    let size = disk.free().checked_sub(left).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, size).unwrap();
}

/// What is free, and what the database has taken: that uses it again.
fn room(engine: &Engine, disk: &SmallDisk) -> u64 {
    let database = fs::metadata(engine.root().join("berth.db")).unwrap();
    disk.free() + database.blocks() * 512
}

/// Pulls, to know what it needs, and removes the image.
fn measure(engine: &Engine, disk: &SmallDisk, name: &str) -> u64 {
    // The first time the database grows, and stays so.
    for _ in 0..2 {
        engine.cli(&["pull", name]).success();
        engine.cli(&["rmi", name]).success();
    }
    let before = disk.free();
    engine.cli(&["pull", name]).success();
    let needs = before - disk.free();
    engine.cli(&["rmi", name]).success();
    needs
}

#[track_caller]
fn assert_nothing_left(engine: &Engine, when: &str) {
    for list in [["content", "ls", "-q"], ["leases", "ls", "-q"], ["images", "ls", "-q"]] {
        assert_eq!(engine.ctr(&list).success().stdout, "", "{when}: {list:?}");
    }
    assert_eq!(engine.snapshots(), 0, "{when}");
    for left in ["content/ingest", "content/blobs/sha256"] {
        let left = fs::read_dir(engine.root().join(left)).unwrap();
        assert_eq!(left.count(), 0, "{when}");
    }
}

/// `DISK_STEPS` says how many steps there are between no space and enough of it.
fn run_out_of_space(snapshotter: &str) {
    let disk = SmallDisk::new(64);
    let Some(engine) = on(&disk, snapshotter) else { return };
    let registry = Registry::start();
    registry.push(&image());
    let name = registry.reference("image");
    let needs = measure(&engine, &disk, &name);
    let steps = std::env::var("DISK_STEPS").map_or(10, |steps| steps.parse().unwrap());
    let balloon = disk.path().join("balloon");
    for step in 1..steps {
        let when = format!("with {step} of {steps} parts of {needs} bytes");
        leave(&disk, &balloon, needs * step / steps);
        let before = room(&engine, &disk);
        engine.cli(&["pull", &name]).exited(1).complains("o space left on device");
        assert_nothing_left(&engine, &when);
        let lost = before.saturating_sub(room(&engine, &disk));
        assert!(lost <= SLACK, "{when}: {lost} bytes are not given back");
        fs::remove_file(&balloon).unwrap();

        engine.cli(&["pull", &name]).success();
        engine.cli(&["system", "check"]).success();
        engine.cli(&["rmi", &name]).success();
        assert_nothing_left(&engine, &when);
    }
    engine.cli(&["run", "--rm", &name, "sha256sum", "/noise-1"]).success();
}

#[test]
fn cli_a_pull_may_run_out_of_space_anywhere() {
    run_out_of_space("erofs");
}

#[test]
fn cli_a_pull_into_directories_may_run_out_of_space_anywhere() {
    run_out_of_space("overlayfs");
}

/// Layers as directories take an inode for each file.
#[test]
fn cli_a_pull_may_run_out_of_inodes() {
    let disk = SmallDisk::with_inodes(64, 512);
    let Some(engine) = on(&disk, "overlayfs") else { return };
    let registry = Registry::start();
    registry.push(&image());
    let name = registry.reference("image");
    let others = disk.path().join("others");
    for count in [440, 380, 300] {
        fs::create_dir(&others).unwrap();
        for number in 0..count {
            fs::write(others.join(number.to_string()), "").unwrap();
        }
        engine.cli(&["pull", &name]).exited(1).complains("o space left on device");
        assert_nothing_left(&engine, &format!("beside {count} files"));
        fs::remove_dir_all(&others).unwrap();
    }
    engine.cli(&["pull", &name]).success();
    engine.cli(&["system", "check"]).success();
    engine.cli(&["run", "--rm", &name, "sha256sum", "/noise-1"]).success();
}

/// A filesystem that has become read-only, as after an error of its disk.
#[test]
fn cli_a_pull_on_a_read_only_disk_says_so() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    registry.push(&image());
    let name = registry.reference("image");
    for directory in ["content", "snapshots/erofs"] {
        let path = engine.root().join(directory);
        let none = None::<&Path>;
        mount(Some(&path), &path, none, MsFlags::MS_BIND, none).unwrap();
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &path, none, flags, none).unwrap();
        engine.cli(&["pull", &name]).exited(1).complains("Read-only file system");
        umount2(&path, MntFlags::MNT_DETACH).unwrap();
        assert_nothing_left(&engine, directory);
    }
    engine.cli(&["pull", &name]).success();
    engine.cli(&["system", "check"]).success();
}
