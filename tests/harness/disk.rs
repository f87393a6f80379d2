//! A small filesystem of its own, to be filled.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use crate::process::Finished;

/// An ext4 filesystem in a file, mounted through a loop device until this is dropped.
pub struct SmallDisk {
    path: PathBuf,
    /// What goes with it.
    #[allow(dead_code, reason = "held to be removed")]
    directory: Option<TempDir>,
}

impl SmallDisk {
    /// One of `megabytes` MiB.
    pub fn new(megabytes: u64) -> Self {
        Self::with_options(megabytes, &[])
    }

    /// One that can have so many files.
    pub fn with_inodes(megabytes: u64, inodes: u32) -> Self {
        Self::with_options(megabytes, &["-N", &inodes.to_string()])
    }

    /// One that can't promise blocks to a file before they are written.
    pub fn without_promises(megabytes: u64) -> Self {
        Self::with_options(megabytes, &["-O", "^extents,^64bit"])
    }

    /// Takes all that is free, until the file of the returned path is removed.
    pub fn fill(&self) -> PathBuf {
        let balloon = self.path().join("balloon");
        let mut file = File::create(&balloon).expect("a file on the disk");
        for piece in [64 << 10, 512] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        balloon
    }

    fn with_options(megabytes: u64, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let image = directory.path().join("image");
        let file = File::create(&image).expect("a file for a disk");
        file.set_len(megabytes << 20).expect("a size for a disk");
        let name = image.to_str().expect("a path");
        let all = [&["-q", "-m", "0"], options, &[name]].concat();
        Finished::run("mkfs.ext4", &all, b"").success();
        let path = directory.path().join("disk");
        std::fs::create_dir(&path).expect("a mount point");
        let mut disk = Self::of(&image, path);
        disk.directory = Some(directory);
        disk
    }

    /// The filesystem that is in the file `image`, mounted on the directory `path`.
    pub fn of(image: &Path, path: PathBuf) -> Self {
        let names = ["-o", "loop"].map(Path::new);
        Finished::run("mount", &[names[0], names[1], image, &path], b"").success();
        Self { path, directory: None }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path()).expect("look at a filesystem");
        stat.f_bavail * stat.f_frsize
    }

    /// Bytes that are taken.
    pub fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path()).expect("look at a filesystem");
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What still uses it keeps it, without a name.
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
    }
}
