//! Hostile archives, as tests that every writer of trees passes: who includes this file says by
//! `attack` how a writer fares.

use berth_types::Kind;

use crate::attack;
use crate::support::{Tar, record};

/// Asserts that an attack is refused as a fault of the archive.
fn refused(name: &str, build: impl Fn(Tar, &str) -> Tar) {
    assert_eq!(attack(build), Some(Kind::InvalidArgument), "{name}");
}

/// Asserts that an attack is taken as something harmless.
fn harmless(name: &str, build: impl Fn(Tar, &str) -> Tar) {
    assert_eq!(attack(build), None, "{name}");
}

#[test]
fn names_that_lead_out() {
    refused("parent", |tar, _| tar.file("../canary/file", "x"));
    refused("parent below", |tar, _| tar.directory("a", 0o755).file("a/../../canary/file", "x"));
    refused("parent alone", |tar, _| tar.directory("..", 0o777));
    refused("parent at the end", |tar, _| tar.directory("a/..", 0o777));
    refused("absolute parent", |tar, _| tar.file("/../../canary/file", "x"));
    refused("parent by extended header", |tar, _| {
        tar.pax(b'x', "path", b"../canary/file").file("harmless", "x")
    });
    refused("parent by long name", |tar, _| {
        tar.member(b'L', "long", b"../canary/file\0", |_| {}).file("harmless", "x")
    });
    refused("parent by sparse name", |tar, _| {
        tar.pax(b'x', "GNU.sparse.name", b"../canary/file").file("harmless", "x")
    });
    refused("NUL in the name", |tar, _| tar.pax(b'x', "path", b"a\0b").file("harmless", "x"));
    harmless("absolute", |tar, canary| {
        tar.pax(b'x', "path", format!("{canary}/file").as_bytes()).file("x", "x")
    });
}

#[test]
fn writing_through_symbolic_links() {
    harmless("file through absolute link", |tar, canary| {
        tar.symlink("out", canary).file("out/file", "x")
    });
    harmless("file through relative link", |tar, _| {
        tar.symlink("out", "../canary").file("out/file", "x")
    });
    harmless("through two links", |tar, canary| {
        tar.symlink("a", canary).symlink("b", "a/directory").file("b/file", "x")
    });
    harmless("through a link deep below", |tar, _| {
        tar.directory("d", 0o755).symlink("d/up", "../../canary").file("d/up/file", "x")
    });
    harmless("file over a link to a file", |tar, canary| {
        tar.symlink("out", &format!("{canary}/file")).file("out", "x")
    });
    harmless("directory over a link, for its mode", |tar, canary| {
        tar.symlink("out", canary).directory("out", 0o777)
    });
    harmless("device over a link", |tar, canary| {
        tar.symlink("out", &format!("{canary}/file")).member(b'3', "out", b"", |_| {})
    });
    harmless("attributes by a link", |tar, canary| {
        tar.pax(b'x', "SCHILY.xattr.trusted.a", b"1").symlink("out", &format!("{canary}/file"))
    });
    refused("a loop of links", |tar, _| tar.symlink("a", "b").symlink("b", "a").file("a/f", "x"));
    refused("a link to itself", |tar, _| tar.symlink("a", "a").file("a/f", "x"));
    refused("a magic link", |tar, _| tar.symlink("a", "/proc/self/fd/0/..").file("a/b/../f", ""));
    refused("an empty link", |tar, _| tar.symlink("a", ""));
    refused("NUL in a link", |tar, _| tar.pax(b'x', "linkpath", b"a\0b").symlink("a", "b"));
}

#[test]
fn hard_links() {
    let missing = Some(Kind::FailedPrecondition);
    let outside = |tar: Tar, canary: &str| tar.hard_link("a", &format!("{canary}/file"));
    assert_eq!(attack(outside), missing, "absolute");
    refused("parent", |tar, _| tar.hard_link("a", "../canary/file"));
    let through = |tar: Tar, canary: &str| {
        tar.symlink("out", canary).hard_link("a", "out/file").file("a", "x")
    };
    assert_eq!(attack(through), missing, "through a link");
    harmless("to a symbolic link, then written", |tar, canary| {
        tar.symlink("out", &format!("{canary}/file")).hard_link("a", "out").file("a", "x")
    });
    harmless("to a symbolic link, then a directory", |tar, canary| {
        tar.symlink("out", canary).hard_link("a", "out").directory("a", 0o777)
    });
    harmless("to itself", |tar, _| tar.file("a", "x").hard_link("a", "a"));
    refused("to a directory", |tar, _| tar.directory("d", 0o755).hard_link("a", "d"));
    refused("to what it replaces", |tar, _| tar.file("a/b/c", "x").hard_link("a", "a/b/c"));
    refused("to the root", |tar, _| tar.hard_link("a", "."));
    harmless("with a size", |tar, _| {
        tar.file("a", "x").member(b'1', "b", b"", |header| {
            header.as_old_mut().linkname[0] = b'a';
            header.set_size(1 << 20);
        })
    });
}

#[test]
fn whiteouts() {
    refused("of the parent", |tar, _| tar.file(".wh...", ""));
    refused("of the directory", |tar, _| tar.file("a/.wh..", ""));
    refused("of nothing", |tar, _| tar.file("a/.wh.", ""));
    refused("below a whiteout", |tar, _| tar.file(".wh.a/file", ""));
    harmless("through a link", |tar, canary| {
        tar.symlink("out", canary).file("out/.wh.file", "").file("out/.wh.directory", "")
    });
    harmless("opaque through a link", |tar, canary| {
        tar.symlink("out", canary).file("out/.wh..wh..opq", "")
    });
    harmless("of a link to a directory", |tar, canary| {
        tar.symlink("out", canary).file(".wh.out", "")
    });
    refused("overlay's own attribute", |tar, _| {
        tar.pax(b'x', "SCHILY.xattr.trusted.overlay.redirect", b"/canary").directory("a", 0o755)
    });
    refused("overlay's own attribute for all", |tar, _| {
        tar.pax(b'g', "SCHILY.xattr.trusted.overlay.opaque", b"y").directory("a", 0o755)
    });
}

#[test]
fn members_that_change_what_they_are() {
    harmless("file, directory, link", |tar, _| {
        tar.file("a", "x").directory("a", 0o755).file("a/b", "x").symlink("a", "b").file("a", "x")
    });
    harmless("a directory with one in it, file", |tar, _| {
        tar.directory("a/b", 0o755).file("a", "x")
    });
    harmless("a directory with one in it, link to another", |tar, _| {
        tar.directory("c/b", 0o755).directory("a/b", 0o755).symlink("a", "c")
    });
    harmless("directory by a link to it", |tar, _| {
        tar.directory("d", 0o755).symlink("l", "d").file("l/f", "x").file("l", "x")
    });
    refused("file as a directory", |tar, _| tar.file("a", "x").file("a/b", "x"));
    refused("fifo as a directory", |tar, _| tar.member(b'6', "a", b"", |_| {}).file("a/b", "x"));
    refused("the root as a link", |tar, canary| tar.symlink("./", canary).file("file", "x"));
    refused("the root as a file", |tar, _| tar.file(".", "x"));
}

#[test]
fn numbers_out_of_range() {
    let ids = ["4294967295", "4294967296", "18446744073709551615", "18446744073709551616", "-1"];
    for (key, value) in ids.iter().flat_map(|id| [("uid", id), ("gid", id)]) {
        refused(value, |tar, _| tar.pax(b'x', key, value.as_bytes()).file("a", "x"));
    }
    refused("negative owner", |tar, _| {
        tar.member(b'0', "a", b"", |header| header.as_old_mut().uid = [0xff; 8])
    });
    refused("major", |tar, _| {
        tar.member(b'3', "a", b"", |header| header.set_device_major(4096).unwrap())
    });
    refused("minor", |tar, _| {
        tar.member(b'4', "a", b"", |header| header.set_device_minor(1 << 20).unwrap())
    });
    refused("negative size", |tar, _| {
        tar.member(b'0', "a", b"", |header| header.as_old_mut().size = [0xff; 12])
    });
    refused("no octal digits", |tar, _| {
        tar.member(b'0', "a", b"", |header| header.as_old_mut().mode = *b"rwxr-xr-")
    });
    refused("malformed time", |tar, _| tar.pax(b'x', "mtime", b"1e99").file("a", "x"));
    harmless("a time beyond the filesystem's", |tar, _| {
        tar.pax(b'x', "mtime", b"99999999999999.5").file("a", "x")
    });
}

#[test]
fn sizes_that_disagree() {
    let hidden = Tar::new().file("hidden", "x").finish();
    let smuggled = &hidden[..1024];
    for kind in *b"23456" {
        refused("data by a type that has none", |tar, _| {
            tar.member(kind, "a", b"", |header| header.set_size(1024)).raw(smuggled)
        });
    }
    refused("one size for all", |tar, _| tar.pax(b'g', "size", b"0").file("a", "x"));
    refused("one name for all", |tar, _| tar.pax(b'g', "path", b"a").file("b", "x"));
    refused("unknown type", |tar, _| tar.member(b'Z', "a", b"", |_| {}));
    refused("wrong checksum", |tar, _| tar.raw(&[b'x'; 512]));
    refused("record longer than its header", |tar, _| {
        tar.member(b'x', "pax", b"99 path=a\n", |_| {}).file("a", "x")
    });
}

#[test]
fn sparse_files() {
    let exhausted = Some(Kind::ResourceExhausted);
    let huge = |tar: Tar, _: &str| {
        let map =
            [record("GNU.sparse.size", b"9223372036854775807"), record("GNU.sparse.map", b"0,0")];
        tar.member(b'x', "pax", &map.concat(), |_| {}).file("a", "")
    };
    assert_eq!(attack(huge), exhausted, "8 EiB by extended header");
    let huge = |tar: Tar, _: &str| {
        tar.member(b'S', "a", b"", |header| {
            header.as_gnu_mut().unwrap().realsize = *b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff";
        })
    };
    assert_eq!(attack(huge), exhausted, "8 EiB by header");
    let sparse = |map: &'static str, data: &'static str| {
        move |tar: Tar, _: &str| {
            let records =
                [record("GNU.sparse.size", b"1000"), record("GNU.sparse.map", map.as_bytes())];
            tar.member(b'x', "pax", &records.concat(), |_| {}).file("a", data)
        }
    };
    refused("overlap", sparse("0,2,1,2", "abcd"));
    refused("backwards", sparse("100,1,0,1", "ab"));
    refused("past the end", sparse("999,2", "ab"));
    refused("more than stored", sparse("0,3", "ab"));
    refused("less than stored", sparse("0,1", "ab"));
    refused("offset alone", sparse("0,1,5", "a"));
    refused("overflow", sparse("18446744073709551615,1", "a"));
    refused("a map without a size", |tar, _| {
        tar.pax(b'x', "GNU.sparse.map", b"0,1").file("a", "x")
    });
    refused("a map that doesn't end", |tar, _| {
        let records = [
            record("GNU.sparse.major", b"1"),
            record("GNU.sparse.minor", b"0"),
            record("GNU.sparse.realsize", b"1000"),
        ];
        tar.member(b'x', "pax", &records.concat(), |_| {}).file("a", &"1".repeat(512))
    });
}

#[test]
fn limits() {
    let exhausted = Some(Kind::ResourceExhausted);
    let many = |tar: Tar, _: &str| (0..1001).fold(tar, |tar, n| tar.file(&format!("f{n}"), ""));
    assert_eq!(attack(many), exhausted, "members");
    let deep = |tar: Tar, _: &str| {
        let path = |n| format!("{n}/{}f", "d/".repeat(500));
        (0..3).fold(tar, |tar, n| tar.pax(b'x', "path", path(n).as_bytes()).file("x", ""))
    };
    assert_eq!(attack(deep), exhausted, "directories that only names have");
    let large = |tar: Tar, _: &str| tar.member(b'0', "a", b"", |header| header.set_size(1 << 40));
    assert_eq!(attack(large), exhausted, "a size");
    let extended =
        |tar: Tar, _: &str| tar.member(b'x', "a", b"", |header| header.set_size(1 << 30));
    assert_eq!(attack(extended), exhausted, "an extended header");
    let long = |tar: Tar, _: &str| tar.member(b'L', "a", b"", |header| header.set_size(1 << 30));
    assert_eq!(attack(long), exhausted, "a long name");
    refused("a name longer than the kernel takes", |tar, _| {
        tar.pax(b'x', "path", &[b'x'; 300]).file("a", "")
    });
    refused("a path longer than the kernel takes", |tar, _| {
        tar.pax(b'x', "path", "x/".repeat(3000).as_bytes()).file("a", "")
    });
    refused("an attribute's name", |tar, _| {
        tar.pax(b'x', &format!("SCHILY.xattr.user.{}", "x".repeat(300)), b"1").file("a", "")
    });
}
