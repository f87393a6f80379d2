//! The home directory of a user, from the container's own `/etc/passwd`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use berth_sys::path::Root;
use rustix::fs::{FileType, OFlags};

/// How much of the file is read: it is the container's to make as large as it likes.
const PASSWD_MAX: u64 = 1 << 20;

/// The home directory of `uid` by the files in `root`; `/` when they don't say.
pub(super) fn of(root: &Root, uid: u32) -> String {
    let passwd = read_passwd(root).unwrap_or_default();
    passwd.lines().find_map(|line| home(line, uid)).unwrap_or("/").to_owned()
}

fn read_passwd(root: &Root) -> Option<String> {
    // A FIFO in its place must not make this wait (CVE-2024-9676).
    let file = root.open_at(Path::new("/etc/passwd"), OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    File::from(file).take(PASSWD_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn home(line: &str, uid: u32) -> Option<&str> {
    let mut fields = line.split(':').skip(2);
    let theirs: u32 = fields.next()?.parse().ok()?;
    let home = fields.nth(2)?;
    (theirs == uid && !home.is_empty()).then_some(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_field_of_the_users_line_is_the_home() {
        let line = "app:x:7:8:An app:/srv/app:/bin/sh";
        assert_eq!(home(line, 7), Some("/srv/app"));
        assert_eq!(home(line, 8), None);
        assert_eq!(home("app:x:7:8::", 7), None);
        assert_eq!(home("nonsense", 0), None);
    }

    #[test]
    fn a_directory_without_the_file_or_with_a_fifo_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        assert_eq!(of(&root, 0), "/");
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        let fifo = directory.path().join("etc/passwd");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
        assert_eq!(of(&root, 0), "/");
    }
}
