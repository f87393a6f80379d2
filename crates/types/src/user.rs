//! Who `user:group` is, by the contents of a container's `/etc/passwd` and `/etc/group`
//! (passwd(5), group(5)).
//!
//! The contents are an image's, so nothing in them is trusted: a number always means the number,
//! whatever a line of that *name* says; ids above 2^31−1, which some programs take for −1 and so
//! for "no change", are refused; malformed lines are passed over. Whoever reads the files opens
//! them inside the container's root, only if they are regular, and caps their size.

use std::collections::BTreeSet;

use crate::{Error, Result};

/// The greatest id.
const MAX_ID: u64 = i32::MAX as u64;

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// All groups, the primary one among them.
    pub additional_gids: Vec<u32>,
    /// The home directory; `/` where the files say none.
    pub home: String,
}

/// Resolves `user`, `uid`, `user:group`, `uid:gid` or a mix of them. Empty is root. A user given
/// without a group gets the primary one and the memberships that the files say; where a group is
/// given it is the only one.
///
/// # Errors
/// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) when a name is in no line, or an id is
/// out of range.
pub fn resolve(text: &str, passwd: &str, group: &str) -> Result<Identity> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let id = parse_id(user)?;
    let account = find_account(user, id, passwd)?;
    let uid = match (&account, id) {
        (Some(account), _) => account.uid,
        (None, Some(id)) => id,
        (None, None) => {
            return Err(Error::invalid_argument(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    };
    let (gid, additional) = match wanted_group {
        Some(name) => (find_group(name, group)?, Vec::new()),
        None => {
            let gid = account.as_ref().map_or(0, |account| account.gid);
            (gid, account.as_ref().map_or(Vec::new(), |account| memberships(account.name, group)))
        }
    };
    let home = account.map_or("", |account| account.home);
    let home = if home.starts_with('/') { home } else { "/" };
    Ok(Identity { uid, gid, additional_gids: with_primary(gid, additional), home: home.to_owned() })
}

/// A line of the passwd file.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A number, or `None` for a name. What is all digits is never a name.
fn parse_id(text: &str) -> Result<Option<u32>> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u64>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id as u32)),
        _ => Err(Error::invalid_argument(format!(
            "user or group id {text} is out of range: the greatest is {MAX_ID}"
        ))),
    }
}

fn find_account<'a>(user: &str, id: Option<u32>, passwd: &'a str) -> Result<Option<Account<'a>>> {
    for line in passwd.lines() {
        let mut fields = line.split(':');
        let mut field = || fields.next();
        let (Some(name), Some(_), Some(uid), Some(gid)) = (field(), field(), field(), field())
        else {
            continue;
        };
        let home = fields.nth(1).unwrap_or("");
        let matches = match id {
            Some(id) => uid.parse() == Ok(id),
            None => name == user,
        };
        if matches {
            let (uid, gid) = (listed_id(uid, name)?, listed_id(gid, name)?);
            return Ok(Some(Account { name, uid, gid, home }));
        }
    }
    Ok(None)
}

/// The id in a line that has been chosen.
fn listed_id(text: &str, name: &str) -> Result<u32> {
    match text.parse::<u64>() {
        Ok(id) if id <= MAX_ID => Ok(id as u32),
        _ => Err(Error::invalid_argument(format!(
            "the image's entry for {name:?} has the id {text:?}: it must be a number up to {MAX_ID}"
        ))),
    }
}

fn find_group(name: &str, group: &str) -> Result<u32> {
    if let Some(id) = parse_id(name)? {
        return Ok(id);
    }
    let line = groups(group).find(|(known, ..)| *known == name);
    match line {
        Some((_, id, _)) => listed_id(id, name),
        None => Err(Error::invalid_argument(format!(
            "unable to find group {name}: no matching entries in group file"
        ))),
    }
}

/// The groups that list `user` as a member.
fn memberships(user: &str, group: &str) -> Vec<u32> {
    let mine = groups(group).filter(|(.., members)| members.split(',').any(|one| one == user));
    mine.filter_map(|(name, id, _)| listed_id(id, name).ok()).collect()
}

/// Name, id and members of each well-formed line.
fn groups(group: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        Some((name, id, fields.next().unwrap_or("")))
    })
}

fn with_primary(gid: u32, additional: Vec<u32>) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    std::iter::once(gid).chain(additional).filter(|gid| seen.insert(*gid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "\
# a comment
root:x:0:0:root:/root:/bin/sh
short:x:7
app:x:1000:1000:App:/home/app:/bin/sh
1001:x:0:0:a number for a name:/root:/bin/sh
huge:x:4294967295:0::/:/bin/sh
far:x:2147483648:0::/:/bin/sh
adrift:x:12:12::relative:/bin/sh
+nis
";
    const GROUP: &str = "\
root:x:0:root
wheel:x:10:root,app
app:x:1000:
broken
docker:x:999:app,other
huge:x:4294967296:app
";

    fn who(text: &str) -> (u32, u32, Vec<u32>) {
        let identity = resolve(text, PASSWD, GROUP).unwrap();
        (identity.uid, identity.gid, identity.additional_gids)
    }

    #[test]
    fn names_have_their_groups_and_the_primary_one() {
        assert_eq!(who(""), (0, 0, vec![0, 10]));
        assert_eq!(who("app"), (1000, 1000, vec![1000, 10, 999]));
        assert_eq!(resolve("app", PASSWD, GROUP).unwrap().home, "/home/app");
        assert_eq!(resolve("adrift", PASSWD, GROUP).unwrap().home, "/");
    }

    #[test]
    fn a_group_that_is_given_is_the_only_one() {
        assert_eq!(who("app:docker"), (1000, 999, vec![999]));
        assert_eq!(who("5:6"), (5, 6, vec![6]));
        assert_eq!(who(":wheel"), (0, 10, vec![10]));
        assert_eq!(who("app:"), (1000, 1000, vec![1000, 10, 999]));
    }

    #[test]
    fn numbers_are_looked_up_by_number() {
        assert_eq!(who("1000"), (1000, 1000, vec![1000, 10, 999]));
        assert_eq!(who("4242"), (4242, 0, vec![0]));
        assert_eq!(who("1001"), (1001, 0, vec![0]), "not the line of that name, which is root");
    }

    #[test]
    fn ids_out_of_range_are_refused() {
        for text in ["2147483648", "4294967296", "99999999999999999999", "huge", "far", "1:huge"] {
            assert!(resolve(text, PASSWD, GROUP).is_err(), "{text}");
        }
        assert_eq!(who("2147483647").0, 2_147_483_647);
    }

    #[test]
    fn unknown_names_are_refused() {
        for text in ["nobody", "-1", "+1", "app:nobody", "short", "0x0", " 0"] {
            assert!(resolve(text, PASSWD, GROUP).is_err(), "{text}");
        }
        assert!(resolve("root", "", "").is_err());
        assert_eq!(resolve("0", "", "").unwrap().home, "/");
    }
}
