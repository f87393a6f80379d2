//! Who a process runs as, by the container's own `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use berth_sys::path::Root;
use berth_types::{Result, ResultExt, spec, user};
use rustix::fs::{FileType, OFlags};

/// How much of a file is read: it is the container's to make as large as it likes.
const FILE_MAX: u64 = 1 << 20;

/// A user with groups and a home.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The primary group is among them, so that a process that gives it up by a set-group-ID
    /// program still has what the group is denied (CVE-2022-36109).
    pub(super) groups: Vec<u32>,
    /// The home directory; `/` when nothing says.
    pub(super) home: String,
}

/// The account of `user` in `root`: its numbers count, unless there is a name.
pub(super) fn resolve(user: &spec::User, root: &Root) -> Result<Account> {
    let passwd = read(root, "/etc/passwd").unwrap_or_default();
    let Some(name) = user.username.as_deref().filter(|name| !name.is_empty()) else {
        let text = format!("{}:{}", user.uid, user.gid);
        let home = user::resolve(&text, &passwd, "").map(|known| known.home);
        let mut groups = vec![user.gid];
        groups.extend(user.additional_gids.iter().filter(|gid| **gid != user.gid));
        let home = home.unwrap_or_else(|_| "/".to_owned());
        return Ok(Account { uid: user.uid, gid: user.gid, groups, home });
    };
    let group = read(root, "/etc/group").unwrap_or_default();
    let known = user::resolve(name, &passwd, &group).context(|| "process.user")?;
    let mut groups = known.additional_gids;
    groups.extend(&user.additional_gids);
    Ok(Account { uid: known.uid, gid: known.gid, groups, home: known.home })
}

fn read(root: &Root, path: &str) -> Option<String> {
    // A FIFO in its place must not make this wait (CVE-2024-9676).
    let file = root.open_at(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    File::from(file).take(FILE_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(passwd: &str, group: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::fs::write(directory.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(directory.path().join("etc/group"), group).unwrap();
        let root = Root::open(directory.path()).unwrap();
        (directory, root)
    }

    #[test]
    fn numbers_get_their_home_and_names_everything() {
        let (_directory, root) = files("app:x:7:8::/srv/app:/bin/sh\n", "web:x:9:app\n");
        let number =
            spec::User { uid: 7, gid: 5, additional_gids: vec![5, 6], ..Default::default() };
        let account = resolve(&number, &root).unwrap();
        assert_eq!((account.uid, account.gid, account.groups), (7, 5, vec![5, 6]));
        assert_eq!(account.home, "/srv/app");
        let name = spec::User { username: Some("app".into()), ..Default::default() };
        let account = resolve(&name, &root).unwrap();
        assert_eq!((account.uid, account.gid), (7, 8));
        assert!(account.groups.contains(&8) && account.groups.contains(&9));
        let nobody = spec::User { username: Some("nobody".into()), ..Default::default() };
        assert!(resolve(&nobody, &root).is_err());
    }

    #[test]
    fn a_fifo_says_nothing() {
        let (directory, root) = files("", "");
        let passwd = directory.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, mode, 0).unwrap();
        assert_eq!(resolve(&spec::User::default(), &root).unwrap().home, "/");
    }
}
