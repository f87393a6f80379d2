//! The snapshotter `erofs` passes the suite; its layers are single files, mounted while they are
//! needed.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_snapshotter::conformance::{self, Scratch};
use berth_snapshotter::{CommitOptions, Erofs, Overlay, PrepareOptions, Snapshotter};
use berth_store::Store;
use berth_types::Kind;

fn open(directory: &Path) -> Arc<dyn Snapshotter> {
    fs::create_dir_all(directory).expect("a directory");
    let store = Store::open(&directory.join("berth.db")).expect("a database");
    Arc::new(Erofs::open(&directory.join("erofs"), store).expect("a snapshotter"))
}

async fn layer(snapshotter: &dyn Snapshotter, name: &str, parent: &str) {
    snapshotter.prepare("extract", parent, PrepareOptions::default()).await.expect("prepare");
    let files = snapshotter.changes("extract").await.expect("its directory");
    fs::write(files.join(name), name).expect("write");
    snapshotter.commit(name, "extract", CommitOptions::default()).await.expect("commit");
}

/// A path to an open directory.
fn path(directory: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", directory.as_raw_fd()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    conformance::all(open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_layer_is_one_file() {
    let scratch = Scratch::new();
    let snapshotter = open(scratch.path());
    layer(&*snapshotter, "one", "").await;
    let own = scratch.path().join("erofs/1");
    let names: Vec<_> = fs::read_dir(&own)
        .expect("its directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["layer.erofs"]);
    let image = own.join("layer.erofs").metadata().expect("an image");
    assert_eq!((image.mode() & 0o777, image.len() % 4096), (0o600, 0));

    // Readers get it, whoever removes the layer meanwhile; what is no layer has none.
    let opened = snapshotter.layer_image("one").await.expect("a layer").expect("an image");
    assert_eq!(opened.metadata().expect("metadata").ino(), image.ino());
    snapshotter.prepare("two", "one", PrepareOptions::default()).await.expect("prepare");
    assert!(snapshotter.layer_image("two").await.expect("no layer").is_none());
    let unknown = snapshotter.layer_image("three").await.expect_err("nothing");
    assert_eq!(unknown.kind(), Kind::NotFound);
}

/// Flips and truncations anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_damages_of_a_layer_are_found() {
    let scratch = Scratch::new();
    let snapshotter = open(scratch.path());
    layer(&*snapshotter, "one", "").await;
    let image = scratch.path().join("erofs/1/layer.erofs");
    let good = fs::read(&image).expect("an image");
    for round in 0..1000 {
        let at = round * 7919 % good.len();
        let mut damaged = good.clone();
        match round % 2 {
            0 => damaged[at] ^= 1 << (round / 2 % 8),
            _ => damaged.truncate(at),
        }
        fs::write(&image, damaged).expect("damage");
        let found = snapshotter.check("one").await.expect("look at it");
        assert!(found.is_some(), "round {round}");
    }
    fs::write(&image, good).expect("mend");
    assert_eq!(snapshotter.check("one").await.expect("look at it"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_mounted_once_while_they_are_needed() {
    let scratch = Scratch::new();
    let snapshotter = open(scratch.path());
    layer(&*snapshotter, "one", "").await;
    layer(&*snapshotter, "two", "one").await;
    snapshotter.cleanup().await.expect("cleanup");
    assert!(scratch.mounts().is_empty(), "{:?}", scratch.mounts());
    for key in ["a", "b"] {
        snapshotter.prepare(key, "two", PrepareOptions::default()).await.expect("prepare");
        assert_eq!(scratch.mounts().len(), 2);
    }
    snapshotter.view("c", "one", PrepareOptions::default()).await.expect("view");
    snapshotter.remove("a").await.expect("remove");
    snapshotter.cleanup().await.expect("cleanup");
    assert_eq!(scratch.mounts().len(), 2);
    snapshotter.remove("b").await.expect("remove");
    snapshotter.cleanup().await.expect("cleanup");
    assert_eq!(scratch.mounts().len(), 1);
    snapshotter.remove("c").await.expect("remove");
    snapshotter.cleanup().await.expect("cleanup");
    assert!(scratch.mounts().is_empty());
    for key in ["two", "one"] {
        snapshotter.remove(key).await.expect("remove");
    }
    assert_eq!(fs::read_dir(scratch.path().join("erofs")).expect("a directory").count(), 0);
}

/// After the machine was restarted, nothing is mounted; after the daemon was, all is.
#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_found_or_made_again() {
    let scratch = Scratch::new();
    let snapshotter = open(scratch.path());
    layer(&*snapshotter, "one", "").await;
    layer(&*snapshotter, "two", "one").await;
    snapshotter.prepare("active", "two", PrepareOptions::default()).await.expect("prepare");
    drop(snapshotter);
    let snapshotter = open(scratch.path());
    assert_eq!(scratch.mounts().len(), 2);
    drop(snapshotter);
    for target in scratch.mounts() {
        rustix::mount::unmount(&target, rustix::mount::UnmountFlags::DETACH).expect("unmount");
    }
    let snapshotter = open(scratch.path());
    snapshotter.mounts("active").await.expect("mounts");
    assert_eq!(scratch.mounts().len(), 2);
    snapshotter.remove("active").await.expect("remove");
    snapshotter.cleanup().await.expect("cleanup");
    assert!(scratch.mounts().is_empty());
    let layers = snapshotter.layers("two").await.expect("layers");
    assert_eq!(fs::read(path(&layers[0]).join("two")).expect("read"), b"two");
    assert_eq!(fs::read(path(&layers[1]).join("one")).expect("read"), b"one");
    assert!(scratch.mounts().is_empty());
}

/// What a crash can leave: a mounted layer without a record, an image not recorded yet, and a
/// directory that has become an image.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_is_removed_at_open() {
    let scratch = Scratch::new();
    let snapshotter = open(scratch.path());
    layer(&*snapshotter, "one", "").await;
    snapshotter.prepare("active", "one", PrepareOptions::default()).await.expect("prepare");
    drop(snapshotter);
    let erofs = scratch.path().join("erofs");
    fs::create_dir_all(erofs.join("1/fs")).expect("a directory");
    fs::write(erofs.join("2/layer.erofs"), "half").expect("an image");
    fs::create_dir_all(erofs.join("77/mnt")).expect("an orphan");
    let image = erofs.join("1/layer.erofs");
    let flags = rustix::mount::MountFlags::BIND;
    rustix::mount::mount(erofs.join("1/mnt"), erofs.join("77/mnt"), "", flags, None)
        .expect("mount");
    let snapshotter = open(scratch.path());
    assert!(image.exists());
    for gone in ["1/fs", "2/layer.erofs", "77"] {
        assert!(!erofs.join(gone).exists(), "{gone}");
    }
    assert_eq!(scratch.mounts(), [erofs.join("1/mnt")]);
    snapshotter.mounts("active").await.expect("mounts");
}

/// The layers are those that `overlayfs` has, in another form.
#[tokio::test(flavor = "multi_thread")]
async fn both_snapshotters_show_the_same() {
    let scratch = Scratch::new();
    let erofs = open(&scratch.path().join("images"));
    let store = Store::open(&scratch.path().join("berth.db")).expect("a database");
    let overlay = Overlay::open(&scratch.path().join("directories"), store).expect("a snapshotter");
    let mut listings = Vec::new();
    for snapshotter in [&*erofs, &overlay as &dyn Snapshotter] {
        conformance::stack(snapshotter, 5).await;
        let layers = snapshotter.layers("layer-4").await.expect("layers");
        let mut names: Vec<_> = layers
            .iter()
            .flat_map(|layer| fs::read_dir(path(layer)).expect("a layer"))
            .map(|entry| entry.expect("an entry"))
            .map(|entry| (entry.file_name(), fs::read(entry.path()).expect("a file")))
            .collect();
        names.sort();
        listings.push(names);
    }
    assert_eq!(listings[0], listings[1]);
}
