//! Extended headers: POSIX.1-2024 `pax` "pax Extended Header", with the keywords of GNU tar and
//! star that layers use.
//!
//! The records are parsed here and not by crate `tar`, which splits them at newlines: the value of
//! an extended attribute may hold any byte, and `security.capability` does hold newlines.

use berth_types::{Error, Result};

use crate::entry::{Time, Xattr};
use crate::sparse::PaxSparse;

/// What extended headers say of the member that follows; `None` is left to its fixed header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: Vec<Xattr>,
    pub(crate) sparse: PaxSparse,
}

impl Overrides {
    /// Takes in the records of one extended header; later ones win.
    ///
    /// # Errors
    /// InvalidArgument when a record is malformed or has an impossible value.
    pub(crate) fn merge(&mut self, mut records: &[u8]) -> Result<()> {
        while !records.is_empty() {
            let (record, rest) = split_record(records).ok_or_else(malformed)?;
            let separator = record.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
            let key = std::str::from_utf8(&record[..separator]).map_err(|_| malformed())?;
            self.set(key, &record[separator + 1..])?;
            records = rest;
        }
        Ok(())
    }

    /// Takes in one record. An empty value takes an override away.
    fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        match key {
            "path" => self.path = non_empty(value).map(<[u8]>::to_vec),
            "linkpath" => self.link = non_empty(value).map(<[u8]>::to_vec),
            "size" => self.size = non_empty(value).map(decimal).transpose()?,
            "uid" => self.uid = non_empty(value).map(decimal).transpose()?,
            "gid" => self.gid = non_empty(value).map(decimal).transpose()?,
            "mtime" => self.mtime = non_empty(value).map(time).transpose()?,
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.set_xattr(name, value);
                } else if let Some(name) = key.strip_prefix("GNU.sparse.") {
                    self.sparse.set(name, value)?;
                }
            }
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: &str, value: &[u8]) {
        self.xattrs.retain(|xattr| xattr.name != name);
        self.xattrs.push(Xattr { name: name.to_owned(), value: value.to_vec() });
    }
}

/// Splits `LENGTH KEY=VALUE\n` off: the key and value, and what follows. The length, which counts
/// the whole record, alone says where it ends.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space]).ok()?).ok()?;
    let record = records.get(space + 1..length)?;
    let (newline, record) = record.split_last()?;
    (*newline == b'\n').then_some((record, &records[length..]))
}

fn non_empty(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}

/// An unsigned decimal number, digits only.
///
/// # Errors
/// InvalidArgument when it is not, or doesn't fit in 64 bits.
pub(crate) fn decimal(value: &[u8]) -> Result<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or_else(malformed)
}

/// Seconds since 1970, perhaps negative, perhaps with a fraction, which is cut to nanoseconds.
fn time(value: &[u8]) -> Result<Time> {
    let (negative, value) = match value {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, value),
    };
    let point = value.iter().position(|byte| *byte == b'.').unwrap_or(value.len());
    let fraction = value.get(point + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let digits = fraction.iter().map(|digit| i64::from(digit - b'0'));
    let nanoseconds =
        digits.chain(std::iter::repeat(0)).take(9).fold(0, |value, digit| value * 10 + digit);
    let seconds = i64::try_from(decimal(&value[..point])?).map_err(|_| malformed())?;
    Ok(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

fn malformed() -> Error {
    Error::invalid_argument("the layer's archive has a malformed extended header")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(records: &[u8]) -> Result<Overrides> {
        let mut overrides = Overrides::default();
        overrides.merge(records)?;
        Ok(overrides)
    }

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let length = key.len() + value.len() + 5;
        assert!((10..100).contains(&length));
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn values_may_hold_newlines_and_equals_signs() {
        let xattr = record("SCHILY.xattr.user.a", b"1\n=\n\0\xff");
        let overrides = parsed(&[xattr, record("path", b"a/b")].concat()).expect("parse");
        assert_eq!(overrides.xattrs[0].name, "user.a");
        assert_eq!(overrides.xattrs[0].value, b"1\n=\n\0\xff");
        assert_eq!(overrides.path.as_deref(), Some(&b"a/b"[..]));
    }

    #[test]
    fn times_have_signs_and_fractions() {
        let cases = [
            ("1.0005", 1, 500_000),
            ("-1.5", -2, 500_000_000),
            ("-17", -17, 0),
            ("1.1234567899", 1, 123_456_789),
        ];
        for (value, seconds, nanoseconds) in cases {
            let mtime = parsed(&record("mtime", value.as_bytes())).expect(value).mtime;
            assert_eq!(mtime, Some(Time { seconds, nanoseconds }), "{value}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            "x path=a\n",
            "9 path=a",
            "99 path=a\n",
            "8 patha\n",
            "0 path=a\n",
            "3 \n",
            "11 size=-1\n",
            "13 mtime=1e3\n",
            "31 uid=99999999999999999999999\n",
        ] {
            assert!(parsed(records.as_bytes()).is_err(), "{records:?}");
        }
    }
}
