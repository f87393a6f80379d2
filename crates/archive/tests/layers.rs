//! Whiteouts, implicit parents and compressions: what layers have that archives don't.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_archive::{Lowers, Options, Whiteouts, settle};
use support::{Tar, apply_to, attribute, listing};

const REMOVE: Options = Options {
    whiteouts: Whiteouts::Remove,
    limits: berth_archive::Limits { entries: 1000, bytes: 1 << 30 },
};

fn is_whiteout(path: &Path) -> bool {
    let metadata = path.symlink_metadata().unwrap();
    metadata.mode() & 0o170_000 == 0o020_000 && metadata.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    attribute(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

/// The layers in these directories, the uppermost first.
fn lowers(directories: &[&File]) -> Lowers {
    Lowers::new(directories.iter().map(|directory| directory.try_clone().unwrap().into()))
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
    let root = tempfile::tempdir().unwrap();
    let archive = Tar::new()
        .file("a/.wh.gone", "")
        .directory("b", 0o755)
        .file("b/.wh..wh..opq", "")
        .file("b/kept", "new")
        .directory("c", 0o755)
        .file(".wh.c", "")
        .file(".wh.d", "")
        .directory("d", 0o700)
        .file(".wh.e", "")
        .file("e/inside", "new")
        .file("f", "new")
        .file(".wh.f", "")
        .file(".wh.g", "")
        .file("g", "new")
        .file(".wh..wh.plnk/1.2", "aufs")
        .finish();
    let applied = apply_to(root.path(), &archive, &Options::default()).unwrap();
    let at = |path: &str| root.path().join(path);
    assert!(is_whiteout(&at("a/gone")));
    for opaque in ["b", "c", "d", "e"] {
        assert!(is_opaque(&at(opaque)), "{opaque}");
    }
    assert!(!is_opaque(&at("a")));
    for file in ["b/kept", "e/inside", "f", "g"] {
        assert_eq!(fs::read(at(file)).unwrap(), b"new", "{file}");
    }
    assert!(!at(".wh..wh.plnk").exists());
    assert_eq!(applied.implicit, ["", "a", "e"].map(PathBuf::from));
}

#[test]
fn whiteouts_belong_to_root_in_set_group_id_directories_too() {
    let root = tempfile::tempdir().unwrap();
    let set_group = |header: &mut tar::Header| {
        header.set_mode(0o2755);
        header.set_gid(50);
    };
    let archive = Tar::new().member(b'5', "a", b"", set_group).file("a/.wh.gone", "").finish();
    apply_to(root.path(), &archive, &Options::default()).unwrap();
    let whiteout = root.path().join("a/gone");
    assert!(is_whiteout(&whiteout));
    assert_eq!(whiteout.symlink_metadata().unwrap().gid(), 0);
}

#[test]
fn whiteouts_remove_what_lower_layers_have_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let lower = Tar::new()
        .file("a/gone/deep/file", "old")
        .file("a/stays", "old")
        .file("b/gone", "old")
        .file("b/sub/gone", "old")
        .file("b/sub/replaced", "old")
        .file("c/gone", "old")
        .finish();
    apply_to(root.path(), &lower, &REMOVE).unwrap();
    let upper = Tar::new()
        .file("a/.wh.gone", "")
        .file("b/sub/replaced", "new")
        .file("b/.wh..wh..opq", "")
        .file("c/new", "new")
        .file(".wh.c", "")
        .file("nowhere/.wh.gone", "")
        .finish();
    let applied = apply_to(root.path(), &upper, &REMOVE).unwrap();
    let changed = ["", "a", "b", "b/sub", "c"].map(PathBuf::from);
    assert_eq!(applied.implicit, changed, "what the archive changes something in");
    let mut names: Vec<String> = listing(root.path())
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
        .collect();
    names.retain(|name| !name.is_empty());
    assert_eq!(names, ["a", "a/stays", "b", "b/sub", "b/sub/replaced", "c", "c/new"]);
    assert_eq!(fs::read(root.path().join("b/sub/replaced")).unwrap(), b"new");
}

#[test]
fn implicit_parents_take_what_shows_below() {
    let work = tempfile::tempdir().unwrap();
    let layer = |name: &str, archive: &[u8]| {
        let path = work.path().join(name);
        fs::create_dir(&path).unwrap();
        let applied = apply_to(&path, archive, &Options::default()).unwrap();
        (File::open(path).unwrap(), applied)
    };
    let bottom = Tar::new()
        .directory("./", 0o711)
        .directory("a", 0o1711)
        .directory("a/b", 0o750)
        .directory("hidden", 0o700)
        .directory("hidden/x", 0o700)
        .directory("replaced", 0o700)
        .directory("swapped", 0o700)
        .finish();
    let middle = Tar::new()
        .directory("hidden", 0o711)
        .file("hidden/.wh..wh..opq", "")
        .file("swapped", "a file")
        .finish();
    let top = Tar::new()
        .file("a/b/c/file", "")
        .file("hidden/x/file", "")
        .file(".wh.replaced", "")
        .file("replaced/file", "")
        .file("swapped/file", "")
        .finish();
    let (bottom, _) = layer("bottom", &bottom);
    let (middle, middle_applied) = layer("middle", &middle);
    assert_eq!(middle_applied.implicit, [PathBuf::new()]);
    let (top, top_applied) = layer("top", &top);
    rustix::fs::setxattr(
        work.path().join("bottom/a"),
        "user.note",
        b"n",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    std::os::unix::fs::chown(work.path().join("bottom/a"), Some(7), Some(8)).unwrap();
    settle(middle.as_fd(), &lowers(&[&bottom]), &middle_applied).unwrap();
    settle(top.as_fd(), &lowers(&[&middle, &bottom]), &top_applied).unwrap();

    let mode = |path: &str| {
        work.path().join("top").join(path).metadata().unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(mode(""), 0o711, "the root, by way of the layer between");
    assert_eq!(mode("a"), 0o1711);
    assert_eq!(mode("a/b"), 0o750);
    assert_eq!(mode("a/b/c"), 0o755);
    assert_eq!(mode("hidden"), 0o711);
    assert_eq!(mode("hidden/x"), 0o755);
    assert_eq!(mode("replaced"), 0o755);
    assert_eq!(mode("swapped"), 0o755);
    let (a, below) = (work.path().join("top/a"), work.path().join("bottom/a"));
    assert_eq!(attribute(&a, "user.note").as_deref(), Some(&b"n"[..]));
    let (a, below) = (a.metadata().unwrap(), below.metadata().unwrap());
    assert_eq!((a.uid(), a.gid(), a.mtime_nsec()), (7, 8, below.mtime_nsec()));
}

#[test]
fn whiteouts_stay_where_they_hide_something() {
    let work = tempfile::tempdir().unwrap();
    let layer = |name: &str, archive: &[u8]| {
        let path = work.path().join(name);
        fs::create_dir(&path).unwrap();
        let applied = apply_to(&path, archive, &Options::default()).unwrap();
        (File::open(path).unwrap(), applied)
    };
    let lower = Tar::new().file("shows/gone", "").file("opaque/gone", "").file("file", "");
    let upper = Tar::new()
        .file("shows/.wh.gone", "")
        .file("shows/.wh.never", "")
        .directory("opaque", 0o755)
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/.wh.gone", "")
        .directory("new", 0o755)
        .file("new/.wh.gone", "")
        .file("new/kept", "")
        .directory("file", 0o755)
        .file("file/.wh.gone", "");
    let (lower, _) = layer("lower", &lower.finish());
    let (fd, applied) = layer("upper", &upper.finish());
    settle(fd.as_fd(), &lowers(&[&lower]), &applied).unwrap();
    let at = |path: &str| work.path().join("upper").join(path);
    assert!(is_whiteout(&at("shows/gone")));
    for directory in ["opaque", "new", "file"] {
        assert!(!at(directory).join("gone").exists(), "{directory}");
        assert_eq!(at(directory).metadata().unwrap().mtime(), 1_000_000_000, "{directory}");
    }
    assert!(at("new/kept").exists());
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressions_are_told_by_their_bytes() {
    let archive = Tar::new().file("file", "data").finish();
    let (first, second) = archive.split_at(700);
    let members = [gzip(first), gzip(second)].concat();
    let frames = [zstd::encode_all(first, 1).unwrap(), zstd::encode_all(second, 19).unwrap()];
    let plain = apply_to(tempfile::tempdir().unwrap().path(), &archive, &Options::default());
    let plain = plain.unwrap();
    for compressed in [gzip(&archive), members, frames.concat()] {
        let root = tempfile::tempdir().unwrap();
        let applied = apply_to(root.path(), &compressed, &Options::default()).unwrap();
        assert_eq!(applied.diff_id, plain.diff_id);
        assert_eq!(fs::read(root.path().join("file")).unwrap(), b"data");
    }
}

#[test]
fn damaged_compression_is_refused() {
    let archive = Tar::new().file("file", &"data".repeat(1000)).finish();
    let mut flipped = gzip(&archive);
    let checksum = flipped.len() - 8;
    flipped[checksum] ^= 1;
    let zstd = zstd::encode_all(&archive[..], 3).unwrap();
    for damaged in [
        [gzip(&archive), b"garbage".to_vec()].concat(),
        [gzip(&archive), vec![0; 512]].concat(),
        gzip(&archive)[..60].to_vec(),
        [gzip(&archive), gzip(&archive)[..15].to_vec()].concat(),
        flipped,
        zstd[..zstd.len() - 3].to_vec(),
        [zstd, b"garbage".to_vec()].concat(),
        b"BZh91AY&SY".to_vec(),
        b"\xfd7zXZ\0\0".to_vec(),
        archive[..1000].to_vec(),
    ] {
        let root = tempfile::tempdir().unwrap();
        let applied = apply_to(root.path(), &damaged, &Options::default());
        assert!(applied.is_err(), "{} bytes", damaged.len());
    }
}
