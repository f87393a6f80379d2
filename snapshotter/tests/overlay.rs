//! The snapshotter `overlayfs` passes the suite, and sets right what a crash left.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use berth_snapshotter::{Overlay, PrepareOptions, Snapshotter, VOLATILE, conformance};
use berth_store::Store;
use berth_sys::mount::mount_overlay_at;

fn open(directory: &Path) -> Arc<dyn Snapshotter> {
    fs::create_dir_all(directory).expect("a directory");
    let store = Store::open(&directory.join("berth.db")).expect("a database");
    Arc::new(Overlay::open(&directory.join("overlayfs"), store).expect("a snapshotter"))
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    conformance::all(open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_removed_at_open() {
    let directory = tempfile::tempdir().expect("a directory");
    let snapshotter = open(directory.path());
    snapshotter.prepare("kept", "", PrepareOptions::default()).await.expect("prepare");
    let kept = snapshotter.changes("kept").await.expect("its directory");
    drop(snapshotter);
    let orphan = directory.path().join("overlayfs/77/fs");
    fs::create_dir_all(&orphan).expect("an orphan");

    let snapshotter = open(directory.path());
    assert!(!orphan.exists());
    assert!(kept.exists());
    snapshotter.prepare("new", "", PrepareOptions::default()).await.expect("prepare");
    let new = snapshotter.changes("new").await.expect("its directory");
    assert!(new.ends_with("78/fs"), "ids are not used twice: {}", new.display());
}

/// What a power cut can leave: a record whose directory did not reach the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_lost_is_made_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let snapshotter = open(directory.path());
    snapshotter.prepare("active", "", PrepareOptions::default()).await.expect("prepare");
    let files = snapshotter.changes("active").await.expect("its directory");
    drop(snapshotter);
    fs::remove_dir_all(files.parent().expect("the snapshot's directory")).expect("remove it");
    let snapshotter = open(directory.path());
    assert_eq!(snapshotter.changes("active").await.expect("its directory"), files);
    assert!(files.is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_leaves_what_is_being_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let snapshotter = open(directory.path());
    fs::create_dir_all(directory.path().join("overlayfs/1000/fs")).expect("an orphan");
    let mut tasks = Vec::new();
    for number in 0..50 {
        let snapshotter = snapshotter.clone();
        tasks.push(tokio::spawn(async move {
            let key = format!("key-{number}");
            snapshotter.prepare(&key, "", PrepareOptions::default()).await.expect("prepare");
            snapshotter.cleanup().await.expect("cleanup");
            assert!(snapshotter.changes(&key).await.expect("its directory").is_dir());
        }));
    }
    for task in tasks {
        task.await.expect("a task");
    }
    assert!(!directory.path().join("overlayfs/1000").exists());
    assert_eq!(snapshotter.list("").await.expect("list").len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_can_look_into_the_directories() {
    let directory = tempfile::tempdir().expect("a directory");
    let snapshotter = open(directory.path());
    snapshotter.prepare("key", "", PrepareOptions::default()).await.expect("prepare");
    let own = snapshotter.changes("key").await.expect("its directory");
    let own = own.parent().expect("the snapshot's directory");
    for private in [own, &directory.path().join("overlayfs")] {
        let mode = private.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{}", private.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volatile_snapshot_is_mounted_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let snapshotter = open(directory.path());
    conformance::stack(snapshotter.as_ref(), 1).await;
    let labels = [(VOLATILE.to_owned(), String::new())].into();
    let options = PrepareOptions { labels };
    let mounts = snapshotter.prepare("key", "layer-0", options).await.expect("prepare");
    assert!(mounts[0].options.iter().any(|option| option == "volatile"));
}

/// Kernels before 6.8 take the options of an overlay in one page only: the directories are then
/// named from the snapshotter's own, which the mounting process makes its working directory.
#[tokio::test(flavor = "multi_thread")]
async fn many_layers_fit_in_one_page() {
    const TARGET: &str = "BERTH_TEST_MOUNT_TARGET";
    const OPTIONS: &str = "BERTH_TEST_MOUNT_OPTIONS";
    if let (Ok(target), Ok(options)) = (std::env::var(TARGET), std::env::var(OPTIONS)) {
        let target = fs::File::open(target).expect("the target");
        let options: Vec<&str> = options.split(',').collect();
        return mount_overlay_at(target.as_fd(), &options).expect("mount");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let snapshotter = open(&directory.path().join("a-root-with-a-name-of-more-than-some-length"));
    conformance::stack(snapshotter.as_ref(), 128).await;
    let mounts = snapshotter.prepare("top", "layer-127", PrepareOptions::default()).await;
    let options = mounts.expect("prepare")[0].options.join(",");
    assert!(options.len() > 4096);

    let target = directory.path().join("mnt");
    fs::create_dir(&target).expect("a mount point");
    let itself = std::env::current_exe().expect("this test");
    let status = Command::new(itself)
        .args(["--exact", "many_layers_fit_in_one_page"])
        .env(TARGET, &target)
        .env(OPTIONS, &options)
        .status()
        .expect("run this test as a child");
    assert!(status.success());
    let seen = fs::read_to_string(target.join("shared"));
    let bottom = target.join("0").exists();
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).expect("unmount");
    assert_eq!(seen.expect("a file of the topmost layer"), "127");
    assert!(bottom, "a file of the bottom layer");
}
