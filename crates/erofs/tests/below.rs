//! An image is corrected for the layers below it as a directory is.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use berth_archive::{Lowers, Options, Time, Xattr, settle};
use berth_erofs::Below;
use support::{LIMITS, Mounted, Tar, apply_to, attribute, compare, draft};

/// What a directory is, as a layer below shows it.
fn below(path: &Path) -> Option<Below> {
    let metadata = path.symlink_metadata().ok().filter(fs::Metadata::is_dir)?;
    let xattrs = ["user.note", "trusted.note"]
        .into_iter()
        .filter_map(|name| Some(Xattr { name: name.to_owned(), value: attribute(path, name)? }));
    Some(Below {
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: Time { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() },
        xattrs: xattrs.collect(),
    })
}

#[test]
fn directories_left_out_and_whiteouts_of_nothing() {
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    for name in ["lower", "upper", "mount"] {
        fs::create_dir(at(name)).unwrap();
    }
    let lower = Tar::new()
        .directory("./", 0o711)
        .pax(b'x', "SCHILY.xattr.user.note", b"n")
        .member(b'5', "a", b"", |header| {
            header.set_mode(0o1711);
            header.set_uid(70_000);
        })
        .directory("a/b", 0o750)
        .directory("hidden", 0o700)
        .directory("hidden/x", 0o700)
        .directory("replaced", 0o700)
        .file("file", "")
        .file("shows/gone", "");
    let upper = Tar::new()
        .file("a/b/c/file", "")
        .file("hidden/.wh..wh..opq", "")
        .file("hidden/x/file", "")
        .file("hidden/.wh.gone", "")
        .file(".wh.replaced", "")
        .file("replaced/file", "")
        .file("shows/.wh.gone", "")
        .file("shows/.wh.never", "")
        .directory("new", 0o755)
        .file("new/.wh.gone", "")
        .file("new/kept", "")
        .directory("file", 0o755)
        .file("file/.wh.gone", "")
        .finish();
    apply_to(&at("lower"), &lower.finish(), &Options::default()).unwrap();
    let applied = apply_to(&at("upper"), &upper, &Options::default()).unwrap();
    let [lower, directory] = ["lower", "upper"].map(|name| File::open(at(name)).unwrap());
    settle(directory.as_fd(), &Lowers::new([lower.into()]), &applied).unwrap();

    let mut draft = draft(&upper, &at("image"), LIMITS).unwrap();
    draft.settle(|path| Ok(below(&at("lower").join(path)))).unwrap();
    draft.seal().unwrap();
    support::check(&at("image"));
    let mounted = Mounted::new(&at("image"), &at("mount"));
    let started = UNIX_EPOCH + Duration::from_secs(work.path().metadata().unwrap().ctime() as u64);
    compare(mounted.path(), &at("upper"), started - Duration::from_secs(5));
    let a = mounted.path().join("a").metadata().unwrap();
    assert_eq!((a.mode() & 0o7777, a.uid(), a.mtime()), (0o1711, 70_000, 1_000_000_000));
    assert_eq!(attribute(&mounted.path().join("a"), "user.note").as_deref(), Some(&b"n"[..]));
    assert!(mounted.path().join("shows/gone").symlink_metadata().is_ok());
    assert!(!mounted.path().join("new/gone").exists());
}
