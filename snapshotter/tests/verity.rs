//! Layers on a filesystem with fs-verity: what the disk gives out wrong is not read.
//!
//! Where the kernel was built without fs-verity, this says so, unless the environment has `VERITY`,
//! and tests that layers are made and checked all the same.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_snapshotter::{CommitOptions, Erofs, PrepareOptions, Snapshotter};
use berth_store::Store;
use berth_types::Fault;
use rustix::fs::{Advice, fadvise};
use rustix::mount::UnmountFlags;

/// An ext4 filesystem with fs-verity in a file, unmounted with this value.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        let disk = Self(tempfile::tempdir().expect("a directory"));
        let (image, root) = (disk.image(), disk.root());
        File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("a file");
        fs::create_dir(&root).expect("a directory");
        run(Command::new("mkfs.ext4").args(["-q", "-b", "4096", "-O", "verity"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&root));
        disk
    }

    fn image(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("mnt")
    }

    /// Flips a bit wherever the disk has `bytes`: in the image, and in blocks that are free again.
    fn flip(&self, bytes: &[u8]) {
        let root = File::open(self.root()).expect("the disk");
        rustix::fs::syncfs(&root).expect("sync");
        let device = fs::read(self.image()).expect("read the disk");
        let places: Vec<_> =
            (0..device.len() - bytes.len()).filter(|at| device[*at..].starts_with(bytes)).collect();
        assert!(!places.is_empty(), "the bytes are on the disk");
        let disk = File::options().write(true).open(self.image()).expect("the disk");
        for place in places {
            disk.write_all_at(&[bytes[0] ^ 1], place as u64).expect("write");
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.root(), UnmountFlags::DETACH);
    }
}

fn run(command: &mut Command) {
    let status = command.status().expect("a program of e2fsprogs or mount");
    assert!(status.success(), "{command:?}");
}

/// Whether this kernel knows fs-verity: without it, ext4 refuses the call as one that it lacks.
fn has_verity(root: &Path) -> bool {
    let path = root.join("probe");
    fs::write(&path, "x").expect("write");
    let enabled = berth_sys::verity::enable(&File::open(&path).expect("open")).expect("an answer");
    fs::remove_file(&path).expect("remove");
    enabled
}

/// Reads a file of a layer as the disk has it.
async fn read(snapshotter: &dyn Snapshotter, image: &Path, name: &str) -> io::Result<Vec<u8>> {
    let file = File::open(image)?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let layers = snapshotter.layers("layer").await.expect("layers");
    fs::read(format!("/proc/self/fd/{}/{name}", layers[0].as_raw_fd()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_not_given_out() {
    let disk = Disk::new();
    let verity = has_verity(&disk.root());
    if !verity {
        assert!(std::env::var_os("VERITY").is_none(), "this kernel should have fs-verity");
        eprintln!("skipped in part: this kernel is built without CONFIG_FS_VERITY");
    }
    let store = Store::open(&disk.root().join("berth.db")).expect("a database");
    let snapshotter = Erofs::with_verity(&disk.root().join("erofs"), store).expect("a snapshotter");
    snapshotter.prepare("active", "", PrepareOptions::default()).await.expect("prepare");
    let files = snapshotter.changes("active").await.expect("its directory");
    let mark = b"the bytes that the disk will give out wrong";
    let content = [&[b'a'; 9000][..], mark, &[b'b'; 9000]].concat();
    fs::write(files.join("file"), &content).expect("write");
    snapshotter.commit("layer", "active", CommitOptions::default()).await.expect("commit");
    let image = disk.root().join("erofs/1/layer.erofs");
    assert_eq!(read(&snapshotter, &image, "file").await.expect("read"), content);
    assert_eq!(snapshotter.check("layer").await.expect("check"), None);
    if verity {
        let opened = File::options().write(true).open(&image);
        assert!(opened.is_err(), "a protected image can be written");
    }
    disk.flip(mark);
    let found = snapshotter.check("layer").await.expect("check");
    let read = read(&snapshotter, &image, "file").await;
    if verity {
        assert!(matches!(found, Some(Fault::Unreadable(_))), "{found:?}");
        assert_eq!(read.expect_err("a wrong byte").raw_os_error(), Some(5));
    } else {
        assert_eq!(found, Some(Fault::Differs));
        assert!(read.is_ok());
    }
    snapshotter.remove("layer").await.expect("remove");
}
