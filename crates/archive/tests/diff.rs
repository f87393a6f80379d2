//! The difference of two trees, applied to the one, makes the other.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_archive::{Options, Whiteouts, diff, diff_upper};
use support::{apply_to, listing, run};

/// What stands below.
const LOWER: &str = r"
    mkdir -p kept/deep changed gone/deep opaque swapped modes
    echo 1 > kept/deep/file; echo 1 > changed/file; echo 1 > changed/gone; echo 1 > gone/deep/file
    echo 1 > opaque/old; echo 1 > swapped/file; echo 1 > was-file; echo same > stealth
    echo 1 > one; ln one two; ln -s one link; mkfifo pipe
    echo 1 > modes/file; touch -d '2001-01-01 UTC' stealth
    touch -d '2001-01-01 01:01:01.5 UTC' kept/deep/file kept/deep kept
";

/// What happens to it.
const CHANGE: &str = r"
    echo 2 > changed/file; rm changed/gone; rm -r gone; echo 2 > changed/new
    rm -r opaque; mkdir opaque; echo 2 > opaque/new
    rm -r swapped; ln -s kept swapped; rm was-file; mkdir was-file; echo 2 > was-file/inside
    echo SAME > stealth; touch -d '2001-01-01 UTC' stealth
    rm two; ln one three; rm link; ln -s two link; rm pipe; mknod pipe c 1 3
    chmod 4750 modes/file; chown 5000000:70000 modes; setfattr -n user.a -v b modes
    touch -h -d '1960-01-01 01:01:01.5 UTC' link
    long=$(printf 'x%.0s' $(seq 150)); echo 2 > $long; ln -s $long$long longlink
    cp /bin/true capable; setfattr -n security.capability -v 0x010000020a0a000000000000000000000000000a capable
";

fn script(directory: &Path, script: &str) {
    run(Command::new("sh").args(["-ec", script]).current_dir(directory));
}

/// The listing without the times of directories, which a layer needn't keep.
fn contents(root: &Path) -> Vec<String> {
    let text = listing(root);
    let lines = text.lines().filter(|line| !line.starts_with(' '));
    lines
        .map(|line| match line.contains(" 40") {
            true => line.split(' ').take(3).collect::<Vec<_>>().join(" "),
            false => line.to_owned(),
        })
        .collect()
}

struct Trees {
    work: tempfile::TempDir,
}

impl Trees {
    fn new() -> Self {
        let work = tempfile::tempdir().unwrap();
        for name in ["lower", "upper", "scratch", "merged", "applied"] {
            fs::create_dir(work.path().join(name)).unwrap();
        }
        script(&work.path().join("lower"), LOWER);
        Self { work }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn open(&self, name: &str) -> File {
        File::open(self.path(name)).unwrap()
    }

    fn copy_lower(&self, to: &str) {
        run(Command::new("cp").args(["-aT", "--"]).args([self.path("lower"), self.path(to)]));
    }
}

#[test]
fn of_two_trees() {
    let trees = Trees::new();
    trees.copy_lower("merged");
    script(&trees.path("merged"), CHANGE);
    let mut layer = Vec::new();
    let (lower, merged) = (trees.open("lower"), trees.open("merged"));
    diff(Some(lower.as_fd()), merged.as_fd(), &mut layer).unwrap();

    trees.copy_lower("applied");
    let options = Options { whiteouts: Whiteouts::Remove, ..Options::default() };
    apply_to(&trees.path("applied"), &layer, &options).unwrap();
    assert_eq!(contents(&trees.path("applied")), contents(&trees.path("merged")));

    let names = String::from_utf8(tar_names(&trees, &layer)).unwrap();
    assert!(!names.contains("kept"), "what didn't change is left out: {names}");
    assert!(names.lines().any(|name| name == ".wh.gone"), "{names}");

    let mut again = Vec::new();
    diff(Some(merged.as_fd()), merged.as_fd(), &mut again).unwrap();
    assert_eq!(again, [0; 1024], "a tree doesn't differ from itself");
}

fn tar_names(trees: &Trees, layer: &[u8]) -> Vec<u8> {
    let file = trees.path("layer.tar");
    fs::write(&file, layer).unwrap();
    run(Command::new("tar").arg("-tf").arg(file))
}

#[test]
fn of_a_whole_tree() {
    let trees = Trees::new();
    script(&trees.path("lower"), CHANGE);
    let mut layer = Vec::new();
    diff(None, trees.open("lower").as_fd(), &mut layer).unwrap();
    apply_to(&trees.path("applied"), &layer, &Options::default()).unwrap();
    assert_eq!(contents(&trees.path("applied")), contents(&trees.path("lower")));

    let file = trees.path("layer.tar");
    fs::write(&file, &layer).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-pxf"]).arg(file);
    run(tar.arg("-C").arg(trees.path("merged")));
    assert_eq!(contents(&trees.path("merged")), contents(&trees.path("lower")));
}

#[test]
fn of_an_overlay() {
    let trees = Trees::new();
    let mount = |upper: &str, scratch: &str| {
        let options = format!(
            "index=off,redirect_dir=off,metacopy=off,lowerdir={},upperdir={},workdir={}",
            trees.path("lower").display(),
            trees.path(upper).display(),
            trees.path(scratch).display(),
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(trees.path("merged"));
        run(&mut mount);
    };
    let unmount = || drop(run(Command::new("umount").arg(trees.path("merged"))));
    mount("upper", "scratch");
    script(&trees.path("merged"), CHANGE);
    let expected = contents(&trees.path("merged"));
    unmount();
    let mut layer = Vec::new();
    diff_upper(trees.open("upper").as_fd(), &mut layer).unwrap();

    // The layer as another upper directory shows the same tree …
    fs::create_dir(trees.path("scratch2")).unwrap();
    apply_to(&trees.path("applied"), &layer, &Options::default()).unwrap();
    mount("applied", "scratch2");
    let shown = contents(&trees.path("merged"));
    unmount();
    assert_eq!(shown, expected);

    // … and so it does on a copy of what is below.
    trees.copy_lower("copy");
    let options = Options { whiteouts: Whiteouts::Remove, ..Options::default() };
    apply_to(&trees.path("copy"), &layer, &options).unwrap();
    assert_eq!(contents(&trees.path("copy")), expected);
}

#[test]
fn an_upper_directory_that_does_not_tell_all_is_refused() {
    let trees = Trees::new();
    let directory = trees.path("upper").join("renamed");
    fs::create_dir(&directory).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&directory, "trusted.overlay.redirect", b"kept", flags).unwrap();
    let refused = diff_upper(trees.open("upper").as_fd(), Vec::new()).unwrap_err();
    assert_eq!(refused.kind(), berth_types::Kind::FailedPrecondition);
}
