//! Device access by `devices.allow` and `devices.deny`
//! (`Documentation/admin-guide/cgroup-v1/devices.rst`).
//!
//! The kernel keeps a default and a list of exceptions from it. A device list of a specification
//! is brought to that form first: the exceptions by device, so that an update can be made without
//! a moment in which a device of both the old and the new list is refused.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use berth_types::spec::DeviceRule;
use berth_types::{Error, Result, ResultExt};

use crate::cgroup::device::{self, Access, Kind, Rule};
use crate::cgroup::directory;

/// A device, or all of a major number, or all; `None` is any.
type Devices = (Kind, Option<u32>, Option<u32>);

/// A default, and what departs from it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Policy {
    allow: bool,
    exceptions: BTreeMap<Devices, u8>,
}

impl Policy {
    fn of(rules: &[DeviceRule]) -> Result<Self> {
        let mut policy = Self::default();
        for rule in device::effective(rules)? {
            policy.add(&rule)?;
        }
        Ok(policy)
    }

    fn add(&mut self, rule: &Rule) -> Result<()> {
        if rule.is_total() {
            *self = Self { allow: rule.allow, exceptions: BTreeMap::new() };
            return Ok(());
        }
        let kinds = match rule.kind {
            Some(kind) => vec![kind],
            None => vec![Kind::Block, Kind::Char],
        };
        for kind in kinds {
            let devices = (kind, rule.major, rule.minor);
            match rule.allow == self.allow {
                true => self.withdraw(devices, rule.access)?,
                false => *self.exceptions.entry(devices).or_default() |= rule.access.0,
            }
        }
        Ok(())
    }

    /// Takes `access` back from the exceptions, as far as they are about `devices`.
    fn withdraw(&mut self, devices: Devices, access: Access) -> Result<()> {
        for (exception, bits) in &mut self.exceptions {
            if *bits & access.0 == 0 || !overlap(*exception, devices) {
                continue;
            }
            if !covers(devices, *exception) {
                return Err(Error::invalid_argument(format!(
                    "the device rule for {} takes a part of that for {}, which cgroup v1 can't \
                     express: list the devices that are meant",
                    line(devices, access),
                    line(*exception, Access(*bits)),
                )));
            }
            *bits &= !access.0;
        }
        self.exceptions.retain(|_, bits| *bits != 0);
        Ok(())
    }

    /// Reads `devices.list`, which says `a *:* rwm` where all is allowed but hides what then is
    /// excepted: `None`.
    fn parse(list: &str) -> Option<Self> {
        let mut policy = Self::default();
        for text in list.lines() {
            let mut fields = text.split([' ', ':']);
            let kind = match fields.next()? {
                "b" => Kind::Block,
                "c" => Kind::Char,
                _ => return None,
            };
            let mut number = || fields.next().map(|field| field.parse().ok());
            let (major, minor) = (number()?, number()?);
            let access = fields.next()?;
            let bit = |letter, bit| if access.contains(letter) { bit } else { 0 };
            let bits = bit('r', Access::READ) | bit('w', Access::WRITE) | bit('m', Access::MKNOD);
            policy.exceptions.insert((kind, major, minor), bits);
        }
        Some(policy)
    }
}

fn covers(wide: Devices, narrow: Devices) -> bool {
    let part = |wide: Option<u32>, narrow| wide.is_none() || wide == narrow;
    wide.0 == narrow.0 && part(wide.1, narrow.1) && part(wide.2, narrow.2)
}

fn overlap(one: Devices, other: Devices) -> bool {
    let part = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
    one.0 == other.0 && part(one.1, other.1) && part(one.2, other.2)
}

fn line((kind, major, minor): Devices, access: Access) -> String {
    let part = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    format!("{} {}:{} {}", kind.letter(), part(major), part(minor), access.letters())
}

/// Sets the policy of a new cgroup.
pub(super) fn restrict(directory: &Path, rules: &[DeviceRule]) -> Result<()> {
    let policy = Policy::of(rules)?;
    let (default, except) = files(policy.allow);
    write(directory, default, ["a".to_owned()])?;
    let lines = policy.exceptions.iter().map(|(devices, bits)| line(*devices, Access(*bits)));
    write(directory, except, lines)
}

/// Changes the policy of a cgroup in use: first what is allowed in addition, then what is denied.
pub(super) fn replace(directory: &Path, rules: &[DeviceRule]) -> Result<()> {
    let wanted = Policy::of(rules)?;
    let list = directory::read(&directory.join("devices.list"))?.unwrap_or_default();
    let present = Policy::parse(&list).filter(|_| !wanted.allow);
    let Some(present) = present else { return restrict(directory, rules) };
    write(directory, "devices.allow", beyond(&wanted, &present))?;
    write(directory, "devices.deny", beyond(&present, &wanted))
}

/// What the exceptions of `one` have and those of `other` have not.
fn beyond(one: &Policy, other: &Policy) -> Vec<String> {
    let mut lines = Vec::new();
    for (devices, bits) in &one.exceptions {
        let rest = bits & !other.exceptions.get(devices).copied().unwrap_or(0);
        if rest != 0 {
            lines.push(line(*devices, Access(rest)));
        }
    }
    lines
}

/// The file that sets a default, and the one that takes exceptions from it.
fn files(allow: bool) -> (&'static str, &'static str) {
    match allow {
        true => ("devices.allow", "devices.deny"),
        false => ("devices.deny", "devices.allow"),
    }
}

/// Writes the lines, one at a time as the kernel takes them, through one open file: every
/// container needs a dozen.
fn write(directory: &Path, file: &str, lines: impl IntoIterator<Item = String>) -> Result<()> {
    let path = directory.join(file);
    let open = OpenOptions::new().write(true).open(&path);
    let mut open = open.context(|| format!("open {}", path.display()))?;
    for line in lines {
        let written = open.write_all(line.as_bytes());
        written.context(|| format!("write {line:?} to {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Result<Policy> {
        let rules: Vec<DeviceRule> = serde_json::from_str(json).unwrap();
        let mut policy = Policy::default();
        for rule in device::effective(&rules).unwrap().iter().take(rules.len()) {
            policy.add(rule)?;
        }
        Ok(policy)
    }

    #[test]
    fn deny_all_then_allow() {
        let policy = policy(
            r#"[{"allow":true,"type":"c","major":9,"minor":9},{"allow":false,"access":"rwm"},
               {"allow":true,"type":"c","major":1,"minor":3,"access":"r"},
               {"allow":true,"type":"c","major":1,"minor":3,"access":"w"}]"#,
        );
        let expected = BTreeMap::from([((Kind::Char, Some(1), Some(3)), 3)]);
        assert_eq!(policy.unwrap(), Policy { allow: false, exceptions: expected });
    }

    #[test]
    fn allow_all_then_deny_a_major() {
        let policy = policy(
            r#"[{"allow":true},{"allow":false,"type":"b","major":8,"access":"w"},
               {"allow":true,"type":"b","major":8,"access":"w"},
               {"allow":false,"major":7,"minor":1,"access":"m"}]"#,
        );
        let expected = BTreeMap::from([
            ((Kind::Block, Some(7), Some(1)), 4),
            ((Kind::Char, Some(7), Some(1)), 4),
        ]);
        assert_eq!(policy.unwrap(), Policy { allow: true, exceptions: expected });
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused() {
        let hole = policy(
            r#"[{"allow":true,"type":"c","access":"m"},
               {"allow":false,"type":"c","major":1,"minor":3,"access":"m"}]"#,
        );
        assert!(hole.is_err());
        let other_access = policy(
            r#"[{"allow":true,"type":"c","access":"m"},
               {"allow":false,"type":"c","major":1,"minor":3,"access":"r"}]"#,
        );
        assert!(other_access.is_ok());
    }

    #[test]
    fn the_kernels_list_is_read_as_written() {
        let wanted = Policy::of(&[]).unwrap();
        let list: Vec<_> =
            wanted.exceptions.iter().map(|(devices, bits)| line(*devices, Access(*bits))).collect();
        assert_eq!(Policy::parse(&list.join("\n")), Some(wanted));
        assert_eq!(Policy::parse("a *:* rwm"), None);
    }
}
