//! The tree that is made of an archive is the tree that GNU tar makes of it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use berth_archive::Options;
use berth_types::Digest;
use support::{apply_to, listing, one_of_everything, run};

/// Packs the tree with `tar` and the `flags`, applies that and extracts it, and compares.
fn compare(tree: &Path, flags: &[&str]) {
    let archive = run(Command::new("tar").args(flags).arg("-C").arg(tree).args(["-cf", "-", "."]));
    compare_archive(&archive, flags);
}

fn compare_archive(archive: &[u8], flags: &[&str]) {
    let work = tempfile::tempdir().unwrap();
    let (ours, theirs) = (work.path().join("ours"), work.path().join("theirs"));
    fs::create_dir(&ours).unwrap();
    fs::create_dir(&theirs).unwrap();
    let applied = apply_to(&ours, archive, &Options::default()).unwrap();
    assert_eq!(applied.diff_id, Digest::of(archive));
    assert_eq!(applied.size, archive.len() as u64);

    let file = work.path().join("archive");
    fs::write(&file, archive).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-xf"]);
    run(tar.arg(&file).arg("-C").arg(&theirs));
    let (ours, theirs) = (listing(&ours), listing(&theirs));
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(ours, theirs, "{flags:?}");
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
}

#[test]
fn every_kind_of_file_in_every_format() {
    let tree = tempfile::tempdir().unwrap();
    one_of_everything(tree.path());
    let xattrs = ["--xattrs", "--xattrs-include=*"];
    compare(tree.path(), &[&xattrs[..], &["--format=pax"]].concat());
    compare(tree.path(), &["--format=gnu"]);
    compare(tree.path(), &["--format=gnu", "--sparse"]);
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}");
        let flags = ["--format=pax", "--sparse", &version];
        compare(tree.path(), &[&xattrs[..], &flags].concat());
    }
}

/// Thousands of real files: what Debian's packages installed on this machine.
#[test]
fn installed_packages() {
    for tree in ["/etc", "/sbin/", "/usr/lib/python3"] {
        if Path::new(tree).is_dir() {
            compare(Path::new(tree), &["--xattrs", "--xattrs-include=*", "--format=pax"]);
        }
    }
}

/// Archives that other writers make, of the same tree.
#[test]
fn other_writers() {
    let tree = tempfile::tempdir().unwrap();
    run(Command::new("sh")
        .args([
            "-ec",
            "mkdir -p a/b/a-longer-name; echo 1 > a/b/file; ln a/b/file link; ln -s b a/c; chmod 4711 link",
        ])
        .current_dir(tree.path()));
    let python = r"
import sys, tarfile
for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
    with tarfile.open(sys.argv[1] + str(kind), 'w', format=kind) as archive:
        for parent in ('.', 'x' * 60):
            archive.add('.', parent, recursive=False)
        archive.add('.', 'x' * 60 + '/' + 'y' * 29)
";
    let work = tempfile::tempdir().unwrap();
    let archive = work.path().join("archive");
    let mut command = Command::new("python3");
    run(command.args(["-c", python]).arg(&archive).current_dir(tree.path()));
    for format in 0..3 {
        let archive = fs::read(format!("{}{format}", archive.display())).unwrap();
        compare_archive(&archive, &["python"]);
    }
    for flags in [["--format=v7"], ["--format=oldgnu"], ["--format=ustar"]] {
        compare(tree.path(), &flags);
    }
}
