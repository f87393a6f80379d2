//! Images are what the directories are that are made of the same layers.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use support::{LIMITS, Mounted, Pair, Tar, attribute, listing, one_of_everything, run, write};

/// Packs the tree with `tar` and the `flags`.
fn pack(tree: &Path, flags: &[&str]) -> Vec<u8> {
    run(Command::new("tar").args(flags).arg("-C").arg(tree).args(["-cf", "-", "."]))
}

const XATTRS: [&str; 3] = ["--xattrs", "--xattrs-include=*", "--format=pax"];

#[test]
fn every_kind_of_file_in_every_format() {
    let tree = tempfile::tempdir().unwrap();
    one_of_everything(tree.path());
    for flags in [&XATTRS[..], &["--format=gnu"], &["--format=gnu", "--sparse"]] {
        Pair::of(&pack(tree.path(), flags), LIMITS).unwrap().compare();
    }
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}");
        let flags = [&XATTRS[..], &["--sparse", &version]].concat();
        Pair::of(&pack(tree.path(), &flags), LIMITS).unwrap().compare();
    }
}

/// Thousands of real files: what Debian's packages installed on this machine.
#[test]
fn installed_packages() {
    for tree in ["/etc", "/sbin/", "/usr/lib/python3"] {
        if Path::new(tree).is_dir() {
            Pair::of(&pack(Path::new(tree), &XATTRS), LIMITS).unwrap().compare();
        }
    }
}

/// A root filesystem as distributions make them.
#[test]
#[ignore = "fetches a Debian root filesystem"]
fn a_debian_root_filesystem() {
    let root = tempfile::tempdir().unwrap();
    run(Command::new("debootstrap").args(["--variant=minbase", "stable"]).arg(root.path()));
    Pair::of(&pack(root.path(), &XATTRS), LIMITS).unwrap().compare();
}

#[test]
fn a_loop_device_shows_the_same() {
    let tree = tempfile::tempdir().unwrap();
    one_of_everything(tree.path());
    let pair = Pair::of(&pack(tree.path(), &XATTRS), LIMITS).unwrap();
    let target = tempfile::tempdir().unwrap();
    let through_loop = Mounted::through_loop(&pair.image(), target.path());
    assert_eq!(listing(through_loop.path()), listing(pair.mount().path()));
}

/// The tool that the format comes with makes the same tree of the directory.
#[test]
fn mkfs_makes_the_same() {
    let tree = tempfile::tempdir().unwrap();
    one_of_everything(tree.path());
    let pair = Pair::of(&pack(tree.path(), &XATTRS), LIMITS).unwrap();
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("image");
    run(Command::new("mkfs.erofs").arg(&image).arg(pair.directory()));
    let theirs = Mounted::new(&image, work.path());
    assert_eq!(listing(pair.mount().path()), listing(theirs.path()));
}

#[test]
fn the_same_layer_gives_the_same_bytes() {
    let tree = tempfile::tempdir().unwrap();
    one_of_everything(tree.path());
    let archive = pack(tree.path(), &XATTRS);
    let work = tempfile::tempdir().unwrap();
    let image = |name: &str| {
        write(&archive, &work.path().join(name), LIMITS).unwrap();
        fs::read(work.path().join(name)).unwrap()
    };
    assert!(image("first") == image("second"));
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
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
    let pair = Pair::of(&archive, LIMITS).unwrap();
    pair.compare();
    let mounted = pair.mount();
    let gone = mounted.path().join("a/gone").symlink_metadata().unwrap();
    assert_eq!((gone.mode(), gone.rdev()), (0o020_000, 0));
    for opaque in ["b", "c", "d", "e"] {
        let value = attribute(&mounted.path().join(opaque), "trusted.overlay.opaque");
        assert_eq!(value.as_deref(), Some(&b"y"[..]), "{opaque}");
    }
}

/// Overlayfs hides by an image what it hides by a directory.
#[test]
fn an_overlay_of_images() {
    let lower =
        Tar::new().file("a/gone", "").file("a/kept", "").file("b/gone", "").file("c", "old");
    let upper = Tar::new()
        .directory("a", 0o755)
        .file("a/.wh.gone", "")
        .directory("b", 0o700)
        .file("b/.wh..wh..opq", "")
        .file("b/new", "")
        .file("c", "new");
    let lower = Pair::of(&lower.finish(), LIMITS).unwrap();
    let upper = Pair::of(&upper.finish(), LIMITS).unwrap();
    let (lower, upper) = (lower.mount(), upper.mount());
    let target = tempfile::tempdir().unwrap();
    let options = format!("lowerdir={}:{}", upper.path().display(), lower.path().display());
    let mut mount = Command::new("mount");
    run(mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(target.path()));
    let shown = listing(target.path());
    run(Command::new("umount").arg(target.path()));
    let names: Vec<&str> = shown.lines().filter_map(|line| Some(line.split_once(' ')?.0)).collect();
    assert_eq!(names, ["", "a", "a/kept", "b", "b/new", "c"]);
}

/// Files, links and attributes of every length around those at which the layout changes.
#[test]
fn lengths_at_which_the_layout_changes() {
    let mut tar = Tar::new();
    for around in [0_usize, 64, 4032, 4096, 8192, 12_224, 16_384] {
        for size in around.saturating_sub(2)..around + 3 {
            tar = tar.file(&format!("file-{size}"), &"x".repeat(size));
            for value in [1, 40, 1000] {
                let name = format!("file-{size}-{value}");
                tar = tar.pax(b'x', "SCHILY.xattr.user.a", &vec![b'v'; value]);
                tar = tar.file(&name, &"y".repeat(size));
            }
        }
    }
    for length in [1, 99, 100, 101, 4031, 4032, 4033, 4094, 4095] {
        let text = "t".repeat(length);
        tar = tar.pax(b'x', "linkpath", text.as_bytes()).symlink(&format!("link-{length}"), "t");
    }
    Pair::of(&tar.finish(), LIMITS).unwrap().compare();
}

/// Attributes longer than a block, which other filesystems don't have.
#[test]
fn long_attributes() {
    let values = [4000, 4096, 8192, 60_000, 65_535].map(|length| vec![b'v'; length]);
    let tar = values.iter().fold(Tar::new(), |tar, value| {
        let tar = tar.pax(b'x', "SCHILY.xattr.user.long", value);
        let tar = tar.file(&format!("file-{}", value.len()), &"x".repeat(5000));
        let tar = tar.pax(b'x', "SCHILY.xattr.user.long", value);
        tar.directory(&format!("directory-{}", value.len()), 0o755)
    });
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("image");
    write(&tar.finish(), &image, LIMITS).unwrap();
    support::check(&image);
    let mounted = Mounted::new(&image, work.path());
    for value in &values {
        for kind in ["file", "directory"] {
            let path = mounted.path().join(format!("{kind}-{}", value.len()));
            assert!(attribute(&path, "user.long").as_ref() == Some(value), "{path:?}");
        }
        let file = mounted.path().join(format!("file-{}", value.len()));
        assert_eq!(fs::read(file).unwrap(), vec![b'x'; 5000]);
    }
}

/// Names before, between and behind `.` and `..`, and names as long as can be.
#[test]
fn names_in_the_order_of_their_bytes() {
    let long = "n".repeat(255);
    let names =
        ["!", "+", "-", ".!", ".-", ".-.", "..!", "..a", "...", ".a", "/", "0", "é", "\u{1}"];
    let mut tar = Tar::new();
    for directory in ["", "d/", "d/e/"] {
        for name in names.iter().copied().filter(|name| *name != "/").chain([&*long]) {
            let path = format!("{directory}{name}");
            tar = tar.pax(b'x', "path", path.as_bytes()).file("x", name);
        }
    }
    Pair::of(&tar.finish(), LIMITS).unwrap().compare();
}

/// As deep as one path leads. It is too deep for the stack of `fsck.erofs`.
#[test]
fn a_deep_path() {
    let path = format!("{}f", "d/".repeat(2047));
    let tar = Tar::new().pax(b'x', "path", path.as_bytes()).file("x", "deep");
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("image");
    let written = write(&tar.finish(), &image, LIMITS).unwrap();
    assert_eq!(written.inodes, 2049);
    let mounted = Mounted::new(&image, work.path());
    let root = fs::File::open(mounted.path()).unwrap();
    let flags = rustix::fs::OFlags::RDONLY;
    let file = rustix::fs::openat(&root, path, flags, rustix::fs::Mode::empty()).unwrap();
    let mut read = [0; 4];
    fs::File::from(file).read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"deep");
}

#[test]
fn a_directory_of_a_hundred_thousand() {
    let count = 100_000;
    let name = |n: usize| format!("d/{:x}-{n}", n.wrapping_mul(0x9e37_79b9) & 0xffff);
    let tar = (0..count).fold(Tar::new().directory("d", 0o755), |tar, n| tar.file(&name(n), ""));
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("image");
    write(&tar.finish(), &image, LIMITS).unwrap();
    support::check(&image);
    let mounted = Mounted::new(&image, work.path());
    assert_eq!(fs::read_dir(mounted.path().join("d")).unwrap().count(), count);
    for n in 0..count {
        assert!(mounted.path().join(name(n)).symlink_metadata().is_ok(), "{}", name(n));
    }
    assert!(!mounted.path().join("d/0-none").exists());
}

/// A file whose offsets need more than 32 bits, nearly all of it hole.
#[test]
fn a_file_larger_than_memory() {
    let size: u64 = 20 << 30;
    let later: u64 = 5 << 30;
    let map = format!("0,5,{later},5,{size},0");
    let records = [
        support::record("GNU.sparse.size", size.to_string().as_bytes()),
        support::record("GNU.sparse.map", map.as_bytes()),
    ];
    let tar = Tar::new().member(b'x', "pax", &records.concat(), |_| {}).file("large", "startlater");
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("image");
    let written = write(&tar.finish(), &image, LIMITS).unwrap();
    assert_eq!(written.file.metadata().unwrap().len(), written.length);
    assert!(written.length < 4 << 20, "{}", written.length);
    let mounted = Mounted::new(&image, work.path());
    let file = fs::File::open(mounted.path().join("large")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size);
    for (offset, expected) in [(0, b"start"), (later, b"later"), (1 << 30, &[0; 5])] {
        let mut read = [0xff; 5];
        file.read_exact_at(&mut read, offset).unwrap();
        assert_eq!(&read, expected, "{offset}");
    }
}
