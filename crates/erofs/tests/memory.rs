//! What it takes to write a layer of a million files does not follow from its size. The peak
//! of the process is measured: each test is run in one of its own.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::fs::{self, File};
use std::io::{self, Read};

use berth_archive::Limits;
use tar::{EntryType, Header};

/// How many files there are.
const FILES: u32 = 1_000_000;
/// In how many directories.
const DIRECTORIES: u32 = 10_000;
/// The most that the process may have in memory, in kB.
const MEMORY: u64 = 64 << 10;

/// The archive, made as it is read: files of one line each, with names as packages have them.
#[derive(Default)]
struct Files {
    number: u32,
    member: io::Cursor<Vec<u8>>,
}

impl Files {
    fn next(&mut self) -> Vec<u8> {
        if self.number == FILES {
            return Vec::new();
        }
        let number = self.number;
        self.number += 1;
        let path = format!(
            "usr/share/package-{}/name-of-file-{number}.txt",
            number / (FILES / DIRECTORIES)
        );
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_path(path).unwrap();
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000 + u64::from(number));
        let line = format!("{number}\n");
        header.set_size(line.len() as u64);
        header.set_cksum();
        let mut member = header.as_bytes().to_vec();
        member.extend_from_slice(line.as_bytes());
        member.resize(1024, 0);
        member
    }
}

impl Read for Files {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.member.position() == self.member.get_ref().len() as u64 {
            self.member = io::Cursor::new(self.next());
        }
        self.member.read(buffer)
    }
}

/// The most that this process has had in memory so far, in kB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Writes the image: as the archive alone, or as pulls do it, so that it can be made again.
fn write(restorable: bool) {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("image");
    let limits = Limits { entries: 2 * u64::from(FILES), ..Limits::default() };
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let (archive, file) = (Files::default(), file.unwrap());
    let draft = match restorable {
        false => berth_erofs::write(archive, file, limits),
        true => berth_erofs::write_restorable(archive, file, limits),
    };
    let image = draft.unwrap().seal().unwrap();
    // With the two directories above all, and the root.
    assert_eq!(image.inodes, u64::from(FILES + DIRECTORIES + 3));
    let peak = peak();
    println!("{peak} kB");
    assert!(peak <= MEMORY, "{peak} kB");
}

#[test]
#[ignore = "takes a minute"]
fn a_million_files_take_little_memory() {
    write(false);
}

#[test]
#[ignore = "takes a minute"]
fn a_million_files_that_can_be_restored_take_little_memory() {
    write(true);
}
