//! The archive that is made again from an image is the one that it was made of, byte for byte; a
//! damaged image makes no other.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use berth_archive::{Decompress, Limits};
use berth_erofs::Archive;
use berth_types::{Digest, Error, Kind, Result};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{LIMITS, Tar, one_of_everything, run};

/// Writes the image of `archive`.
fn write(archive: &[u8], image: &Path, limits: Limits) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(image);
    let draft = berth_erofs::write_restorable(Decompress::new(archive)?, file.unwrap(), limits)?;
    draft.seal().map(|image| image.file)
}

/// Makes the archive of an image again.
fn restore(image: File) -> Result<Vec<u8>> {
    let mut archive = Archive::open(image)?.unwrap();
    let mut bytes = Vec::new();
    match archive.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.downcast::<Error>().unwrap()),
    }
}

/// Asserts that `archive` comes back; returns its image.
fn assert_restored(archive: &[u8]) -> Vec<u8> {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("image");
    let image = write(archive, &path, LIMITS).unwrap();
    support::check(&path);
    let again = Archive::open(image.try_clone().unwrap()).unwrap().unwrap();
    assert_eq!(again.size(), archive.len() as u64);
    assert_eq!(*again.diff_id(), Digest::of(archive));
    assert!(restore(image).unwrap() == archive, "another archive came back");
    fs::read(path).unwrap()
}

/// Packs the tree with `tar` and the `flags`.
fn pack(tree: &Path, flags: &[&str]) -> Vec<u8> {
    run(Command::new("tar").args(flags).arg("-C").arg(tree).args(["-cf", "-", "."]))
}

const XATTRS: [&str; 3] = ["--xattrs", "--xattrs-include=*", "--format=pax"];

#[test]
fn every_kind_of_file_in_every_format() {
    let tree = tempfile::tempdir().unwrap();
    one_of_everything(tree.path());
    let gnu = [&["--format=gnu"][..], &["--format=gnu", "--sparse"], &["--format=gnu", "-b1"]];
    for flags in [&XATTRS[..]].into_iter().chain(gnu) {
        assert_restored(&pack(tree.path(), flags));
    }
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}");
        assert_restored(&pack(tree.path(), &[&XATTRS[..], &["--sparse", &version]].concat()));
    }
}

/// Thousands of real files. What the archive adds to the image stays small.
#[test]
fn installed_packages() {
    for tree in ["/etc", "/sbin/", "/usr/lib/python3"] {
        if Path::new(tree).is_dir() {
            let archive = pack(Path::new(tree), &XATTRS);
            let image = assert_restored(&archive);
            let work = tempfile::tempdir().unwrap();
            let plain = support::write(&archive, &work.path().join("image"), LIMITS).unwrap();
            let more = image.len() as u64 - plain.length;
            assert!(more < archive.len() as u64 / 10, "{more} of {} bytes", archive.len());
        }
    }
}

#[test]
#[ignore = "fetches a Debian root filesystem"]
fn a_debian_root_filesystem() {
    let root = tempfile::tempdir().unwrap();
    run(Command::new("debootstrap").args(["--variant=minbase", "stable"]).arg(root.path()));
    assert_restored(&pack(root.path(), &XATTRS));
}

/// So many times eight bytes that don't compress.
fn noise(words: u64) -> Vec<u8> {
    let word = |n: u64| n.wrapping_mul(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    (0..words).flat_map(|n| word(n).to_le_bytes()).collect()
}

#[test]
fn what_is_no_file_of_the_image_comes_back_too() {
    let noise: Vec<u8> = noise(700_000);
    let base = || {
        Tar::new()
            .file("a/.wh.gone", "a whiteout with data")
            .member(b'0', "a/.wh..wh..opq", &noise[..200_000], |_| {})
            .member(b'0', ".wh..wh.plnk/1", &noise, |_| {})
            .file("twice", "first")
            .file("twice", &"second".repeat(2000))
            .directory("twice", 0o700)
            .symlink("twice", "third")
            .pax(b'g', "comment", b"for all")
            .file("last", "x")
    };
    assert_restored(&base().finish());
    // Neither end nor padding, other bytes in the padding, and whatever follows the end.
    let archive = base().finish();
    let end = archive.len() - 1024;
    assert_restored(&archive[..end]);
    assert_restored(&archive[..end + 512]);
    let mut spoiled = archive.clone();
    spoiled[end - 1..end].fill(7);
    assert_restored(&spoiled);
    for trailer in [&vec![0; 70_000][..], b"junk", &noise, &archive] {
        assert_restored(&[&archive, trailer].concat());
    }
    assert_restored(&[0; 1024]);
    assert_restored(b"");
}

#[test]
fn images_are_only_restorable_when_asked_for() {
    let archive = Tar::new().file("a", "b").finish();
    let work = tempfile::tempdir().unwrap();
    let plain = support::write(&archive, &work.path().join("plain"), LIMITS).unwrap();
    assert!(Archive::open(plain.file).unwrap().is_none());
    fs::write(work.path().join("empty"), "").unwrap();
    let empty = File::open(work.path().join("empty")).unwrap();
    assert!(Archive::open(empty).unwrap().is_none());
}

#[test]
fn the_same_archive_gives_the_same_image() {
    let tree = tempfile::tempdir().unwrap();
    one_of_everything(tree.path());
    let archive = pack(tree.path(), &XATTRS);
    assert!(assert_restored(&archive) == assert_restored(&archive));
}

/// Whatever byte is damaged or cut off, the archive comes back or a DataLoss does.
#[test]
fn damage_is_told() {
    let tree = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = noise(20_000);
    fs::write(tree.path().join("noise"), noise).unwrap();
    for number in 0..300 {
        fs::write(tree.path().join(format!("file-{number}")), number.to_string()).unwrap();
    }
    let archive = pack(tree.path(), &XATTRS);
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("image");
    let image = write(&archive, &path, LIMITS).unwrap();
    let length = image.metadata().unwrap().len();
    let mut seen = 0;
    for at in (0..72).chain((72..length).step_by(211)) {
        let mut byte = [0];
        image.read_exact_at(&mut byte, at).unwrap();
        image.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        seen += judge(&image, &archive);
        image.write_all_at(&byte, at).unwrap();
    }
    assert!(seen > 72, "only {seen} of the damages were seen");
    assert_eq!(judge(&image, &archive), 0);
    for end in (0..length).step_by(4096).collect::<Vec<_>>().into_iter().rev() {
        image.set_len(end).unwrap();
        judge(&image, &archive);
    }
}

/// Reads a damaged image: 1 when the damage was told, 0 when it was harmless.
fn judge(image: &File, archive: &[u8]) -> u64 {
    let read = Archive::open(image.try_clone().unwrap());
    let bytes = match read {
        // Without its first bytes it is an image as any other.
        Ok(None) => return 1,
        Ok(Some(_)) => restore(image.try_clone().unwrap()),
        Err(error) => Err(error),
    };
    match bytes {
        Ok(bytes) => assert!(bytes == archive, "wrong bytes"),
        Err(error) => {
            assert!(matches!(error.kind(), Kind::DataLoss), "{error}");
            return 1;
        }
    }
    0
}

/// A member of an archive, with whatever a writer may do.
#[derive(Clone, Debug)]
enum Member {
    File { name: String, size: usize, odd: u8 },
    Long { kind: u8, text: String },
    Pax { kind: u8, key: String, value: Vec<u8> },
    Directory { name: String },
    Symlink { name: String, target: String },
    HardLink { name: String, target: String },
    Sparse { name: String, extents: Vec<(u64, u64)> },
    Whiteout { name: String, size: usize },
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "./d", "e/"]), 1..4)
        .prop_map(|names| names.join("/"))
}

fn member() -> impl Strategy<Value = Member> {
    let size = prop_oneof![4 => 0_usize..9000, 1 => 60_000_usize..70_000, 1 => Just(300_000_usize)];
    let extents = prop::collection::vec((0_u64..150_000, 1_u64..9000), 1..4);
    prop_oneof![
        6 => (name(), size, any::<u8>()).prop_map(|(name, size, odd)| Member::File { name, size, odd }),
        1 => (prop::sample::select(b"LK".to_vec()), "[a-z/]{100,300}")
            .prop_map(|(kind, text)| Member::Long { kind, text }),
        2 => (prop::sample::select(b"xg".to_vec()), "[a-z.]{1,20}", prop::collection::vec(any::<u8>(), 0..600))
            .prop_map(|(kind, key, value)| Member::Pax { kind, key, value }),
        2 => name().prop_map(|name| Member::Directory { name }),
        1 => (name(), name()).prop_map(|(name, target)| Member::Symlink { name, target }),
        1 => (name(), name()).prop_map(|(name, target)| Member::HardLink { name, target }),
        2 => (name(), extents).prop_map(|(name, extents)| Member::Sparse { name, extents }),
        1 => (name(), 0_usize..5000).prop_map(|(name, size)| Member::Whiteout { name, size }),
    ]
}

fn data(size: usize, seed: u8) -> Vec<u8> {
    (0..size).map(|at| (at / 7).wrapping_add(at.wrapping_mul(at) / 3) as u8 ^ seed).collect()
}

fn packed(members: &[Member]) -> Vec<u8> {
    let mut tar = Tar::new();
    for member in members {
        tar = match member {
            Member::File { name, size, odd } => {
                tar.member(b'0', name, &data(*size, *odd), |header| {
                    // What readers ignore comes back all the same.
                    header.as_mut_bytes()[500..512].fill(*odd);
                    header.as_old_mut().mode[0] = b' ';
                })
            }
            Member::Long { kind, text } => {
                tar.member(*kind, "././@LongLink", text.as_bytes(), |_| {})
            }
            Member::Pax { kind, key, value } => tar.pax(*kind, &format!("X.{key}"), value),
            Member::Directory { name } => tar.directory(name, 0o755),
            Member::Symlink { name, target } => tar.symlink(name, target),
            Member::HardLink { name, target } => tar.hard_link(name, target),
            Member::Sparse { name, extents } => sparse(tar, name, extents),
            Member::Whiteout { name, size } => {
                let name = format!(".wh.{}", name.replace(['/', '.'], "_"));
                tar.member(b'0', &name, &data(*size, 1), |_| {})
            }
        };
    }
    tar.finish()
}

/// A member of GNU tar's old sparse form.
fn sparse(tar: Tar, name: &str, extents: &[(u64, u64)]) -> Tar {
    let mut at = 0;
    let mut map = Vec::new();
    for (gap, length) in extents {
        map.push((at + gap, *length));
        at += gap + length;
    }
    let stored: u64 = map.iter().map(|(_, length)| length).sum();
    tar.member(b'S', name, &data(stored as usize, 9), |header| {
        let gnu = header.as_gnu_mut().unwrap();
        for (field, (offset, length)) in gnu.sparse.iter_mut().zip(&map) {
            field.offset.copy_from_slice(format!("{offset:011o}\0").as_bytes());
            field.numbytes.copy_from_slice(format!("{length:011o}\0").as_bytes());
        }
        gnu.realsize.copy_from_slice(format!("{:011o}\0", at + 5).as_bytes());
    })
}

#[test]
fn random_archives() {
    let limits = Limits { entries: 500, bytes: 64 << 20 };
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let made = std::cell::Cell::new(0);
    let trailer = prop_oneof![
        Just(Vec::new()),
        (1_usize..40_000).prop_map(|length| vec![0; length]),
        prop::collection::vec(any::<u8>(), 0..3000),
    ];
    let cases = (prop::collection::vec(member(), 0..12), trailer, any::<bool>());
    let outcome = runner.run(&cases, |(members, trailer, ended)| {
        let mut archive = packed(&members);
        if !ended {
            archive.truncate(archive.len() - 1024);
        }
        archive.extend(trailer);
        let work = tempfile::tempdir().unwrap();
        if let Ok(image) = write(&archive, &work.path().join("image"), limits) {
            prop_assert!(restore(image).unwrap() == archive);
            made.set(made.get() + 1);
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(made.get() > 50, "only {} archives were good: nothing was compared", made.get());
}
