//! The fixed header of an archive member, POSIX.1-2024 `pax` "ustar Interchange Format" and GNU
//! tar's `tar.h`.

use berth_types::{Error, Result};
use tar::{GnuHeader, Header};

use crate::source::BLOCK;

/// Views a block as a header and checks its sum.
///
/// # Errors
/// InvalidArgument when the checksum is wrong.
pub(crate) fn parse(block: &[u8; BLOCK]) -> Result<Header> {
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    let stored = number(&header.as_old().cksum, "checksum")?;
    // Some writers of old summed signed bytes, which GNU tar accepts too.
    let signed: i64 = summed(block).map(|byte| i64::from(byte.cast_signed())).sum();
    let unsigned: i64 = summed(block).map(i64::from).sum();
    if stored != signed && stored != unsigned {
        return Err(Error::invalid_argument(
            "a header of the layer's archive has a wrong checksum: it is damaged or not a tar",
        ));
    }
    Ok(header)
}

/// The bytes that a checksum is over: its own field counts as spaces.
fn summed(block: &[u8; BLOCK]) -> impl Iterator<Item = u8> + '_ {
    block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte })
}

/// The value of a numeric field: octal digits, or GNU's base 256 if the first bit is set.
///
/// # Errors
/// InvalidArgument, naming the field, when it is neither or doesn't fit in 64 bits.
pub(crate) fn number(field: &[u8], what: &str) -> Result<i64> {
    let value = match field {
        [0x80..=0xff, ..] => base_256(field),
        _ => octal(field),
    };
    value.ok_or_else(|| {
        Error::invalid_argument(format!("a header of the layer's archive has a bad {what}"))
    })
}

/// A number that must not be negative.
///
/// # Errors
/// As [`number`].
pub(crate) fn unsigned(field: &[u8], what: &str) -> Result<u64> {
    u64::try_from(number(field, what)?).map_err(|_| {
        Error::invalid_argument(format!("a header of the layer's archive has a negative {what}"))
    })
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Two's complement, big-endian, in all bits but the first, which only marks the form.
fn base_256(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    let negative = first & 0x40 != 0;
    let start = i64::from(first & 0x3f) - if negative { 0x40 } else { 0 };
    rest.iter().try_fold(start, |value, byte| value.checked_mul(256)?.checked_add(i64::from(*byte)))
}

/// A text field: up to its first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The member's name, with the prefix that ustar splits off.
pub(crate) fn path(header: &Header) -> Vec<u8> {
    let name = text(&header.as_old().name);
    match header.as_ustar().map(|ustar| text(&ustar.prefix)) {
        Some(prefix) if !prefix.is_empty() => [prefix, name].join(&b'/'),
        _ => name.to_vec(),
    }
}

/// The GNU view of a header, whose magic says that it is one.
///
/// # Errors
/// InvalidArgument when it isn't.
pub(crate) fn gnu(header: &Header) -> Result<&GnuHeader> {
    header.as_gnu().ok_or_else(|| {
        Error::invalid_argument("the layer's archive has a GNU sparse member in a header not GNU's")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        let cases: [(&[u8], Option<i64>); 9] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"0000689\0", None),
            (b"77777777", Some(0o7777_7777)),
            (b"\x80\0\0\x01\0\0", Some(65536)),
            (b"\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xfe\0\0\0\0", Some(-(2 << 32))),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ];
        for (field, value) in cases {
            assert_eq!(number(field, "number").ok(), value, "{field:?}");
        }
    }
}
