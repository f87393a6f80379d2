//! Images as Debian's `ctr` imports, pushes, pulls, tags and removes them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod daemon;

use std::fs;
use std::path::PathBuf;

use daemon::Daemon;
use daemon::archive::{File, write_image};
use daemon::registry::Registry;

/// Three layers: the second removes a file of the first and adds one, the third has a file whose
/// directories it leaves out.
const LAYERS: &[&[File]] = &[
    &[("etc/kept", b"kept"), ("etc/gone", b"gone")],
    &[("etc/.wh.gone", b""), ("etc/new", b"new")],
    &[("etc/deep/file", b"deep")],
];

/// Imports the test image under `name`.
fn import(daemon: &Daemon, name: &str) {
    let archive = daemon.path("image.tar");
    write_image(&archive, name, LAYERS);
    daemon.ctr_ok(&["images", "import", archive.to_str().unwrap()]);
}

/// The key of the snapshot that no other has as its parent.
fn top_snapshot(daemon: &Daemon) -> String {
    let list = daemon.ctr_ok(&["snapshots", "ls"]);
    let rows: Vec<Vec<&str>> =
        list.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let is_parent = |key: &str| rows.iter().any(|row| row.len() == 3 && row[1] == key);
    rows.iter().map(|row| row[0]).find(|key| !is_parent(key)).unwrap().to_owned()
}

/// The blobs on the disk.
fn blobs(daemon: &Daemon) -> Vec<PathBuf> {
    let directory = daemon.root().join("content/blobs/sha256");
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn an_image_is_pushed_removed_and_pulled_again() {
    let daemon = Daemon::start();
    let registry = Registry::start();
    let name = format!("{}/test/image:1", registry.host);
    import(&daemon, &name);
    daemon.ctr_ok(&["images", "push", "--plain-http", &name]);
    daemon.ctr_ok(&["images", "rm", "--sync", &name]);
    assert!(blobs(&daemon).is_empty(), "{:?}", blobs(&daemon));
    assert_eq!(daemon.ctr_ok(&["snapshots", "ls"]).lines().count(), 1);

    daemon.ctr_ok(&["images", "pull", "--plain-http", &name]);
    assert_eq!(blobs(&daemon).len(), 5);
    let check = daemon.ctr_ok(&["images", "check"]);
    assert!(check.contains("complete (4/4)") && check.contains("true"), "{check}");

    daemon.ctr_ok(&["-n", "other", "images", "pull", "--plain-http", &name]);
    assert_eq!(blobs(&daemon).len(), 5);
    let refused = daemon.ctr_fails(&["namespaces", "rm", "other"]);
    assert!(refused.contains("failed precondition"), "{refused}");
}

#[test]
fn layers_are_applied_with_whiteouts_and_implicit_parents() {
    let daemon = Daemon::start();
    import(&daemon, "example.com/image:1");
    let top = top_snapshot(&daemon);
    let mounted = daemon.path("mounted");
    fs::create_dir(&mounted).unwrap();
    let target = mounted.to_str().unwrap();
    daemon.ctr_ok(&["snapshots", "--snapshotter", "overlayfs", "view", "look", &top]);
    let mounts = daemon.ctr_ok(&["snapshots", "mounts", target, "look"]);
    let words: Vec<&str> = mounts.split_whitespace().collect();
    assert_eq!(words[..3], ["mount", "-t", "overlay"], "{mounts}");
    let lower = words.last().unwrap().split("lowerdir=").nth(1).unwrap();
    let layers: Vec<PathBuf> = lower.split(':').map(PathBuf::from).collect();
    assert_eq!(layers.len(), 3);
    assert_eq!(fs::read(layers[0].join("etc/deep/file")).unwrap(), b"deep");
    assert_eq!(fs::read(layers[1].join("etc/new")).unwrap(), b"new");
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let whiteout = fs::symlink_metadata(layers[1].join("etc/gone")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
}

#[test]
fn tags_and_labels_are_kept_and_removals_name_what_is_missing() {
    let daemon = Daemon::start();
    import(&daemon, "example.com/image:1");
    daemon.ctr_ok(&["images", "tag", "example.com/image:1", "example.com/image:2"]);
    let taken = daemon.ctr_fails(&["images", "tag", "example.com/image:1", "example.com/image:2"]);
    assert!(taken.contains("already exists"), "{taken}");
    daemon.ctr_ok(&["images", "label", "example.com/image:2", "a=b"]);
    let list = daemon.ctr_ok(&["images", "ls", "labels.a==b"]);
    assert!(list.contains("image:2") && !list.contains("image:1"), "{list}");
    daemon.ctr_ok(&["images", "rm", "--sync", "example.com/image:1"]);
    assert_eq!(blobs(&daemon).len(), 5);
    let missing = daemon.ctr_fails(&["images", "tag", "example.com/image:1", "x:3"]);
    assert!(missing.contains("not found"), "{missing}");
    daemon.ctr_ok(&["images", "rm", "--sync", "example.com/image:2"]);
    assert!(blobs(&daemon).is_empty());
}

#[test]
fn an_export_is_what_was_imported() {
    let daemon = Daemon::start();
    import(&daemon, "example.com/image:1");
    let exported = daemon.path("exported.tar");
    let file = exported.to_str().unwrap();
    daemon.ctr_ok(&["images", "export", file, "example.com/image:1"]);
    let before = daemon.ctr_ok(&["images", "ls"]);
    daemon.ctr_ok(&["images", "rm", "--sync", "example.com/image:1"]);
    daemon.ctr_ok(&["images", "import", file]);
    assert_eq!(daemon.ctr_ok(&["images", "ls"]), before);
}

#[test]
fn an_image_survives_a_restart_and_a_lease_keeps_content() {
    let mut daemon = Daemon::start();
    import(&daemon, "example.com/image:1");
    let before = daemon.ctr_ok(&["images", "check"]);
    daemon.stop(rustix::process::Signal::KILL);
    daemon.boot();
    assert_eq!(daemon.ctr_ok(&["images", "check"]), before);

    daemon.ctr_ok(&["leases", "create", "--id", "kept", "a=b"]);
    assert!(daemon.ctr_ok(&["leases", "ls"]).contains("kept"));
    daemon.ctr_ok(&["leases", "rm", "--sync", "kept"]);
    assert!(!daemon.ctr_ok(&["leases", "ls"]).contains("kept"));
}

#[test]
fn the_embedded_image_is_there_when_it_is_asked_for() {
    let daemon = Daemon::start();
    let name = "berth.local/hello:latest";
    assert_eq!(daemon.ctr_ok(&["images", "ls", "-q"]), "");
    daemon.ctr_ok(&["images", "tag", name, "example.com/mine:1"]);
    let check = daemon.ctr_ok(&["images", "check", "--snapshotter", "erofs"]);
    assert_eq!(check.matches("complete (2/2)").count(), 2, "{check}");
    assert!(!check.contains("false"), "{check}");
    daemon.ctr_ok(&["images", "rm", "--sync", name, "example.com/mine:1"]);
    assert!(blobs(&daemon).is_empty());
    daemon.ctr_ok(&["-n", "other", "images", "tag", name, "example.com/mine:1"]);
}
