//! Hostile archives: each is refused or harmless, and what lies outside of the root is not touched.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

#[path = "support/attacks.rs"]
mod attacks;
mod support;

use std::fs;
use std::io::Write;
use std::path::Path;

use berth_archive::{Applied, Decompress, Limits, Options, Whiteouts, apply};
use berth_types::{Kind, Result};
use support::{Tar, apply_to, listing};

/// A root, and a canary beside it that nothing may change.
struct Trap {
    work: tempfile::TempDir,
    before: String,
}

impl Trap {
    fn new() -> Self {
        let work = tempfile::tempdir().unwrap();
        let canary = work.path().join("canary");
        fs::create_dir_all(canary.join("directory")).unwrap();
        fs::create_dir(work.path().join("root")).unwrap();
        fs::write(canary.join("file"), "untouched").unwrap();
        fs::write(canary.join("directory/file"), "untouched").unwrap();
        let before = listing(&canary);
        Self { work, before }
    }

    fn root(&self) -> std::path::PathBuf {
        self.work.path().join("root")
    }

    /// The canary's path, as an archive may name it.
    fn canary(&self) -> String {
        self.work.path().join("canary").to_str().unwrap().to_owned()
    }

    fn apply(&self, archive: &[u8], whiteouts: Whiteouts) -> Result<Applied> {
        let limits = Limits { entries: 1000, bytes: 64 << 20 };
        let applied = apply_to(&self.root(), archive, &Options { whiteouts, limits });
        assert_eq!(listing(&self.work.path().join("canary")), self.before);
        let names = fs::read_dir(self.work.path()).unwrap().count();
        assert_eq!(names, 2, "something was made beside the root");
        applied
    }
}

/// Applies what `build` makes in both ways, to the same end: the failure, or `None` where it was
/// harmless. What the archive names as outside of its root is the second argument of `build`.
fn attack(build: impl Fn(Tar, &str) -> Tar) -> Option<Kind> {
    let [overlay, remove] = [Whiteouts::Overlay, Whiteouts::Remove].map(|whiteouts| {
        let trap = Trap::new();
        let archive = build(Tar::new(), &trap.canary()).finish();
        trap.apply(&archive, whiteouts).err().map(|error| error.kind())
    });
    assert_eq!(overlay, remove);
    overlay
}

#[test]
fn a_size_by_extended_header_is_the_size() {
    let hidden = Tar::new().file("hidden", "x").finish();
    let smuggled = &hidden[..1024];
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove] {
        // The extended header says 1024, the fixed one 0: what follows is data.
        let trap = Trap::new();
        let archive = Tar::new().pax(b'x', "size", b"1024").file("a", "").raw(smuggled).finish();
        trap.apply(&archive, whiteouts).unwrap();
        assert!(!trap.root().join("hidden").exists());
        assert_eq!(fs::read(trap.root().join("a")).unwrap(), smuggled);
    }
}

/// Expands `count` chunks of zeros after a whole member header, without holding them.
fn bomb(mut encoder: impl Write, count: usize) {
    let member = Tar::new().member(b'0', "zeros", b"", |header| header.set_size(60 << 30)).finish();
    encoder.write_all(&member[..512]).unwrap();
    for _ in 0..count {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
}

/// Applies a bomb to `/dev/null`'s likes: the entries alone, so that no disk is filled.
fn expand(compressed: &[u8]) -> Kind {
    let mut reader = Decompress::new(compressed).unwrap();
    let error = std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err();
    error.downcast::<berth_types::Error>().map_or(Kind::Unknown, |error| error.kind())
}

#[test]
fn decompression_bombs() {
    let mut gzip = Vec::new();
    let level = flate2::Compression::default();
    bomb(flate2::write::GzEncoder::new(&mut gzip, level), 1200);
    assert_eq!(expand(&gzip), Kind::ResourceExhausted);
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    bomb(&mut zstd, 1200);
    assert_eq!(expand(&zstd.finish().unwrap()), Kind::ResourceExhausted);

    // A frame that asks for a window of 2 GiB: magic, descriptor, window, an empty raw block.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (31 - 10) << 3, 0x01, 0x00, 0x00];
    let root = tempfile::tempdir().unwrap();
    let directory = fs::File::open(root.path()).unwrap();
    let directory = std::os::fd::AsFd::as_fd(&directory);
    let decompress = Decompress::new(&window[..]).unwrap();
    assert!(apply(decompress, directory, &Options::default()).is_err());
}

#[test]
fn the_limit_of_bytes_holds_for_the_whole_stream() {
    let trap = Trap::new();
    let mut archive = Tar::new().file("a", "x").finish();
    archive.resize(65 << 20, 0);
    let kind = trap.apply(&archive, Whiteouts::Overlay).unwrap_err().kind();
    assert_eq!(kind, Kind::ResourceExhausted);
}

/// Every prefix of an archive is refused or is a shorter archive; none panics or hangs.
#[test]
fn truncated_and_damaged_archives() {
    let archive = Tar::new()
        .pax(b'x', "SCHILY.xattr.user.a", b"1")
        .file("a", "data")
        .directory("b", 0o755)
        .hard_link("c", "a")
        .symlink("d", "a")
        .finish();
    for end in (0..archive.len()).step_by(97) {
        let trap = Trap::new();
        let applied = trap.apply(&archive[..end], Whiteouts::Overlay);
        assert!(applied.is_ok() || end % 512 != 0 || end == 512 || end == 1024, "{end}");
    }
    for at in (0..archive.len()).step_by(31) {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x55;
        let _ = Trap::new().apply(&damaged, Whiteouts::Overlay);
    }
}

/// A link swapped under the archive's feet never leads out: names are looked up in the root.
#[test]
fn a_racer_swaps_links() {
    let trap = Trap::new();
    let root = trap.root();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let canary = trap.canary();
    fs::create_dir_all(root.join("real/directory")).unwrap();
    let racer = std::thread::spawn(move || {
        let (a, b) = (root.join("swapped"), root.join("spare"));
        std::os::unix::fs::symlink(&canary, &b).unwrap();
        fs::create_dir_all(a.join("directory")).unwrap();
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let here = rustix::fs::CWD;
            rustix::fs::renameat_with(here, &a, here, &b, flags).unwrap();
        }
    });
    let archive = (0..300).fold(Tar::new(), |tar, n| {
        tar.file(&format!("swapped/f{n}"), "x")
            .directory("swapped/directory", 0o777)
            .file("swapped/directory/file", "x")
            .file("swapped/.wh.file", "")
    });
    let archive = archive.finish();
    let options = Options::default();
    for _ in 0..10 {
        let _ = apply_to(&trap.root(), &archive, &options);
    }
    stop.send(()).unwrap();
    racer.join().unwrap();
    assert_eq!(listing(Path::new(&trap.canary())), trap.before);
}
