//! Hostile archives: each is refused as where a layer becomes a directory, or becomes an image
//! that is valid and equal to that directory.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

#[path = "../../archive/tests/support/attacks.rs"]
mod attacks;
mod support;

use berth_archive::Limits;
use berth_types::Kind;
use support::{Pair, Tar, write};

const LIMITS: Limits = Limits { entries: 1000, bytes: 64 << 20 };

/// How the attack that `build` makes ends: the failure, or `None` where it was harmless.
fn attack(build: impl Fn(Tar, &str) -> Tar) -> Option<Kind> {
    let archive = build(Tar::new(), "/canary").finish();
    match Pair::of(&archive, LIMITS) {
        Ok(pair) => {
            pair.compare();
            None
        }
        Err(error) => Some(error.kind()),
    }
}

/// Every prefix of an archive, and every archive with a damaged byte, is refused or becomes an
/// image that is valid.
#[test]
fn truncated_and_damaged_archives() {
    let archive = Tar::new()
        .pax(b'x', "SCHILY.xattr.user.a", b"1")
        .file("a", "data")
        .directory("b", 0o755)
        .hard_link("c", "a")
        .symlink("d", "a")
        .file("b/.wh.e", "")
        .finish();
    for end in (0..archive.len()).step_by(97) {
        let _ = Pair::of(&archive[..end], LIMITS);
    }
    for at in (0..archive.len()).step_by(31) {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x55;
        let _ = Pair::of(&damaged, LIMITS);
    }
}

#[test]
fn attributes_without_end() {
    let value = vec![b'x'; 60_000];
    let many = |count: usize| {
        (0..count).fold(Tar::new(), |tar, n| {
            let value = [n.to_string().as_bytes(), &value].concat();
            let tar = tar.pax(b'x', "SCHILY.xattr.user.a", &value);
            tar.directory(&format!("d{n}"), 0o755)
        })
    };
    let work = tempfile::tempdir().unwrap();
    write(&many(100).finish(), &work.path().join("some"), LIMITS).unwrap();
    support::check(&work.path().join("some"));
    let error = write(&many(300).finish(), &work.path().join("many"), LIMITS).unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);

    let on_root = Tar::new().pax(b'x', "SCHILY.xattr.user.a", &value).directory("./", 0o755);
    let error = write(&on_root.finish(), &work.path().join("root"), LIMITS).unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
}
