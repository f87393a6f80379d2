//! Random layers become the same tree as an image and as a directory, or are refused as both for
//! the same kind of reason.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::cell::Cell;

use berth_archive::Limits;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{Pair, Tar};

const LIMITS: Limits = Limits { entries: 500, bytes: 16 << 20 };

/// A member of a layer. There are few names, so that members replace, hide, link to and lead
/// through each other.
#[derive(Clone, Debug)]
enum Member {
    File { path: String, size: usize, mode: u32, owner: u32 },
    Directory { path: String, mode: u32, owner: u32 },
    Symlink { path: String, target: String },
    HardLink { path: String, target: String },
    Device { path: String, kind: u8, major: u32, minor: u32 },
    Whiteout { path: String },
    Opaque { path: String },
    Attribute { name: String, length: usize },
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "c", "d", "e"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec![".a", "-", "é", "..a", "long name"]).prop_map(str::to_owned),
        1 => (1_usize..255).prop_map(|length| "n".repeat(length)),
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..5).prop_map(|names| names.join("/"))
}

fn link_target() -> impl Strategy<Value = String> {
    let parts = prop_oneof![3 => name(), 1 => Just("..".to_owned()), 1 => Just(".".to_owned())];
    let parts = prop::collection::vec(parts, 1..5);
    (any::<bool>(), parts).prop_map(|(absolute, names)| {
        format!("{}{}", if absolute { "/" } else { "" }, names.join("/"))
    })
}

fn owner() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![0, 1000, 65_535, 65_536, u32::MAX - 1])
}

fn member() -> impl Strategy<Value = Member> {
    prop_oneof![
        6 => (path(), prop_oneof![0_usize..9000, Just(100_000)], 0_u32..0o10000, owner())
            .prop_map(|(path, size, mode, owner)| Member::File { path, size, mode, owner }),
        6 => (path(), 0_u32..0o10000, owner())
            .prop_map(|(path, mode, owner)| Member::Directory { path, mode, owner }),
        3 => (path(), link_target()).prop_map(|(path, target)| Member::Symlink { path, target }),
        3 => (path(), path()).prop_map(|(path, target)| Member::HardLink { path, target }),
        1 => (path(), prop::sample::select(b"346".to_vec()), 0_u32..3, 0_u32..70_000).prop_map(
            |(path, kind, major, minor)| Member::Device { path, kind, major, minor }
        ),
        2 => path().prop_map(|path| Member::Whiteout { path }),
        1 => path().prop_map(|path| Member::Opaque { path }),
        2 => (prop::sample::select(vec!["user.a", "user.b", "trusted.a", "security.b"]), 0_usize..800)
            .prop_map(|(name, length)| Member::Attribute { name: name.to_owned(), length }),
    ]
}

fn pack(members: &[Member]) -> Vec<u8> {
    let mut tar = Tar::new();
    let long = |tar: Tar, path: &str| tar.pax(b'x', "path", path.as_bytes());
    for member in members {
        tar = match member {
            Member::File { path, size, mode, owner } => {
                let data = vec![b'a' + (*size % 26) as u8; *size];
                long(tar, path).member(b'0', "", &data, |header| {
                    header.set_mode(*mode);
                    header.set_uid((*owner).into());
                    header.set_gid((*owner / 2).into());
                })
            }
            Member::Directory { path, mode, owner } => {
                long(tar, path).member(b'5', "", b"", |header| {
                    header.set_mode(*mode);
                    header.set_uid((*owner).into());
                    header.set_gid((*owner / 3).into());
                    header.set_mtime((*mode).into());
                })
            }
            Member::Symlink { path, target } => {
                long(tar, path).pax(b'x', "linkpath", target.as_bytes()).symlink("", "")
            }
            Member::HardLink { path, target } => {
                long(tar, path).pax(b'x', "linkpath", target.as_bytes()).hard_link("", "")
            }
            Member::Device { path, kind, major, minor } => {
                long(tar, path).member(*kind, "", b"", |header| {
                    header.set_device_major(*major).unwrap();
                    header.set_device_minor(*minor).unwrap();
                })
            }
            Member::Whiteout { path } => {
                let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
                long(tar, &format!("{parent}/.wh.{name}")).file("", "")
            }
            Member::Opaque { path } => long(tar, &format!("{path}/.wh..wh..opq")).file("", ""),
            Member::Attribute { name, length } => {
                tar.pax(b'x', &format!("SCHILY.xattr.{name}"), &vec![b'v'; *length])
            }
        };
    }
    // An attribute is of the member that follows.
    tar.file("last", "").finish()
}

#[test]
fn random_layers() {
    let config = Config { cases: 250, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let made = Cell::new(0);
    let layers = prop::collection::vec(member(), 1..40);
    let outcome = runner.run(&layers, |members| {
        if let Ok(pair) = Pair::of(&pack(&members), LIMITS) {
            pair.compare();
            made.set(made.get() + 1);
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(made.get() > 25, "only {} layers were good: nothing was compared", made.get());
}
