//! The snapshotter `native` passes the suite; its snapshots are whole trees.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use berth_snapshotter::conformance::{self, Scratch};
use berth_snapshotter::{CommitOptions, Native, PrepareOptions, Snapshotter};
use berth_store::Store;
use berth_types::Kind;

fn open(directory: &Path) -> Arc<dyn Snapshotter> {
    fs::create_dir_all(directory).expect("a directory");
    let store = Store::open(&directory.join("berth.db")).expect("a database");
    Arc::new(Native::open(&directory.join("native"), store).expect("a snapshotter"))
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    conformance::all(open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_has_files_of_its_own() {
    let scratch = Scratch::new();
    let snapshotter = open(scratch.path());
    snapshotter.prepare("extract", "", PrepareOptions::default()).await.expect("prepare");
    let files = snapshotter.changes("extract").await.expect("its directory");
    fs::write(files.join("a"), "a").expect("write");
    fs::hard_link(files.join("a"), files.join("b")).expect("link");
    snapshotter.commit("one", "extract", CommitOptions::default()).await.expect("commit");
    snapshotter.prepare("two", "one", PrepareOptions::default()).await.expect("prepare");
    let copy = snapshotter.changes("two").await.expect("its directory");
    let [a, b] = ["a", "b"].map(|name| copy.join(name).metadata().expect("a file"));
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    fs::write(copy.join("a"), "changed").expect("write");
    assert_eq!(fs::read(files.join("a")).expect("read"), b"a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_can_not_be_named_at_commit() {
    let scratch = Scratch::new();
    let snapshotter = open(scratch.path());
    for name in ["one", "two"] {
        snapshotter.prepare(name, "", PrepareOptions::default()).await.expect("prepare");
    }
    snapshotter.commit("layer", "one", CommitOptions::default()).await.expect("commit");
    let options = CommitOptions { parent: Some("layer".to_owned()), ..CommitOptions::default() };
    let error = snapshotter.commit("other", "two", options).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Unimplemented);
    assert!(!snapshotter.rebases());
}
