//! The device list of a specification, checked, with the devices that every container may use.

use berth_types::spec::DeviceRule;
use berth_types::{Error, Result, ResultExt};

/// Read, write and mknod, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access(pub(super) u8);

impl Access {
    pub(super) const READ: u8 = 1;
    pub(super) const WRITE: u8 = 2;
    pub(super) const MKNOD: u8 = 4;
    pub(super) const ALL: Self = Self(7);

    fn parse(text: &str) -> Result<Self> {
        let mut bits = 0;
        for letter in text.chars() {
            bits |= match letter {
                'r' => Self::READ,
                'w' => Self::WRITE,
                'm' => Self::MKNOD,
                _ => {
                    return Err(Error::invalid_argument(format!(
                        "device access {text:?}: use only the letters r, w and m"
                    )));
                }
            };
        }
        Ok(if bits == 0 { Self::ALL } else { Self(bits) })
    }

    /// The letters.
    pub(super) fn letters(self) -> String {
        let all = [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MKNOD, 'm')];
        all.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, letter)| letter).collect()
    }
}

/// Character or block devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block,
    Char,
}

impl Kind {
    pub(super) fn letter(self) -> char {
        match self {
            Self::Block => 'b',
            Self::Char => 'c',
        }
    }
}

/// A checked rule. `None` is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: Access,
}

impl Rule {
    fn parse(rule: &DeviceRule) -> Result<Self> {
        let kind = match rule.kind.as_deref().unwrap_or("a") {
            "a" | "" => None,
            "b" => Some(Kind::Block),
            "c" | "u" => Some(Kind::Char),
            other => {
                return Err(Error::invalid_argument(format!(
                    "device type {other:?}: use a, b or c"
                )));
            }
        };
        Ok(Self {
            allow: rule.allow,
            kind,
            major: number(rule.major)?,
            minor: number(rule.minor)?,
            access: Access::parse(rule.access.as_deref().unwrap_or(""))?,
        })
    }

    /// It says something about every access to every device.
    pub(super) fn is_total(&self) -> bool {
        let Self { allow: _, kind, major, minor, access } = self;
        kind.is_none() && major.is_none() && minor.is_none() && *access == Access::ALL
    }

    const fn always(kind: Kind, major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self { allow: true, kind: Some(kind), major, minor, access }
    }
}

fn number(value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(..0) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| {
            Error::invalid_argument(format!("device number {value} is above {}", u32::MAX))
        }),
    }
}

/// What the specification demands for every container ("Default Devices"): any node may be made,
/// and null, zero, full, random, urandom, tty, console and pseudo-terminals be used.
const ALWAYS: [Rule; 11] = [
    Rule::always(Kind::Char, None, None, Access(Access::MKNOD)),
    Rule::always(Kind::Block, None, None, Access(Access::MKNOD)),
    Rule::always(Kind::Char, Some(1), Some(3), Access::ALL),
    Rule::always(Kind::Char, Some(1), Some(5), Access::ALL),
    Rule::always(Kind::Char, Some(1), Some(7), Access::ALL),
    Rule::always(Kind::Char, Some(1), Some(8), Access::ALL),
    Rule::always(Kind::Char, Some(1), Some(9), Access::ALL),
    Rule::always(Kind::Char, Some(5), Some(0), Access::ALL),
    Rule::always(Kind::Char, Some(5), Some(1), Access::ALL),
    Rule::always(Kind::Char, Some(5), Some(2), Access::ALL),
    Rule::always(Kind::Char, Some(136), None, Access::ALL),
];

/// The rules to enforce: nothing is allowed, then `rules`, then what is always allowed. The last
/// that matches decides, for reading, writing and mknod each.
pub(super) fn effective(rules: &[DeviceRule]) -> Result<Vec<Rule>> {
    let mut all = Vec::with_capacity(rules.len() + ALWAYS.len());
    for (index, rule) in rules.iter().enumerate() {
        all.push(Rule::parse(rule).context(|| format!("devices[{index}]"))?);
    }
    all.extend(ALWAYS);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: Option<&str>, major: Option<i64>, access: Option<&str>) -> DeviceRule {
        let kind = kind.map(str::to_owned);
        DeviceRule { allow: false, kind, major, minor: None, access: access.map(str::to_owned) }
    }

    #[test]
    fn absent_and_negative_values_are_any() {
        assert!(Rule::parse(&rule(None, Some(-1), Some("rwm"))).unwrap().is_total());
        assert!(Rule::parse(&rule(Some("a"), None, Some(""))).unwrap().is_total());
        assert!(!Rule::parse(&rule(Some("c"), None, None)).unwrap().is_total());
        assert!(!Rule::parse(&rule(None, None, Some("m"))).unwrap().is_total());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Rule::parse(&rule(Some("p"), None, None)).is_err());
        assert!(Rule::parse(&rule(None, None, Some("rx"))).is_err());
        assert!(Rule::parse(&rule(None, Some(1 << 40), None)).is_err());
    }
}
