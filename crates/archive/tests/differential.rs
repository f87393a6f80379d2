//! The tree that is made of an archive is the tree that GNU tar makes of it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use berth_archive::Options;
use berth_types::Digest;
use support::{apply_to, listing, run};

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

/// A tree with one of everything.
fn build(root: &Path) {
    let script = r#"
        set -e
        mkdir -p a/b/c sticky setgid "name with spaces" "$(printf 'new\nline')"
        echo hello > a/file; echo inner > a/b/c/deep; : > empty
        head -c 300000 /dev/urandom > a/random
        long=$(printf 'x%.0s' $(seq 200)); mkdir -p $long/$long; echo long > $long/$long/$long
        ln -s ../file a/b/link; ln -s /absolute/target dangling; ln -s $long/$long/$long longlink
        ln a/file a/b/hard; ln a/file second; ln $long/$long/$long hardlong; ln -h dangling hardsym 2>/dev/null || ln -P dangling hardsym
        mkfifo pipe; mknod null c 1 3; mknod disk b 259 1048575
        chmod 1777 sticky; chmod 2775 setgid; chmod 0000 empty
        cp /bin/true suid; chown 65534:100 suid; chmod 4755 suid; cp /bin/true sgid; chmod 2711 sgid
        chown 4000000000:4000000001 a/random; chown -h 1000:1000 dangling pipe null
        setfattr -n user.comment -v "0s$(printf 'a\n\0=b' | base64)" a/file
        setfattr -n security.capability -v 0x010000020a0a000000000000000000000000000a suid
        setfattr -n trusted.note -v x a/b; setfattr -h -n trusted.note -v y dangling
        setfattr -n user.dir -v z setgid; echo inherits > setgid/file; chown 0:100 setgid/file
        truncate -s 10M hole; truncate -s 1M head; echo data >> head; truncate -s 3M head; echo x >> head
        for i in $(seq 40); do truncate -s $((i*200000)) many; echo $i >> many; done
        touch -d '1960-01-02 03:04:05.5 UTC' old; touch -d '2001-01-01 01:01:01.123456789 UTC' a/file a/b
        touch -h -d '2002-02-02 02:02:02.987654321 UTC' dangling a/b/link pipe
        touch -d '2100-01-01 UTC' future; touch -d '1999-09-09 09:09:09 UTC' . a
    "#;
    run(Command::new("sh").args(["-c", script]).current_dir(root));
}

#[test]
fn every_kind_of_file_in_every_format() {
    let tree = tempfile::tempdir().unwrap();
    build(tree.path());
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
