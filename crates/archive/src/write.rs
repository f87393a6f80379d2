//! Writing an archive: ustar headers, with extended headers for what those can't say (POSIX.1-2024
//! `pax`), which every reader of layers understands.

use std::io::{self, Read, Write};

use berth_types::{Error, Result, ResultExt};
use tar::{Header, UstarHeader};

use crate::entry::{Entry, EntryKind, Time, shown};
use crate::source::BLOCK;

/// The highest user or group id that seven octal digits hold.
const MAX_FIXED_ID: u32 = 0o777_7777;

/// The highest size and time that eleven octal digits hold.
const MAX_FIXED: u64 = 0o777_7777_7777;

/// An archive being written. Nothing is compressed or buffered here.
pub(crate) struct Writer<W>(W);

impl<W: Write> Writer<W> {
    /// Begins an archive on `output`.
    pub(crate) fn new(output: W) -> Self {
        Self(output)
    }

    /// Writes a member with `entry.size` bytes of `data`.
    ///
    /// # Errors
    /// Aborted when `data` ends early; those of reading and writing.
    pub(crate) fn add(&mut self, entry: &Entry, data: impl Read) -> Result<()> {
        let records = records(entry);
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            fill(header_fields(&mut header)?, b'x', b"PaxHeader", records.len() as u64);
            self.put_header(header)?;
            self.put(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.put_header(header(entry)?)?;
        let copied = io::copy(&mut data.take(entry.size), &mut self.0).context(writing)?;
        if copied < entry.size {
            let path = shown(&entry.path);
            return Err(Error::aborted(format!("{path} became shorter while it was read")));
        }
        self.pad(copied)
    }

    /// Writes the end of the archive.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.put(&[0; 2 * BLOCK])?;
        self.0.flush().context(writing)
    }

    fn put_header(&mut self, mut header: Header) -> Result<()> {
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).context(writing)
    }

    fn pad(&mut self, written: u64) -> Result<()> {
        let padding = written.next_multiple_of(BLOCK as u64) - written;
        self.put(&[0; BLOCK][..padding as usize])
    }
}

fn writing() -> &'static str {
    "write the layer"
}

fn header_fields(header: &mut Header) -> Result<&mut UstarHeader> {
    header.as_ustar_mut().ok_or_else(|| Error::internal("a ustar header is none"))
}

/// Sets what every header has.
fn fill(fields: &mut UstarHeader, kind: u8, name: &[u8], size: u64) {
    fields.typeflag[0] = kind;
    copy(&mut fields.name, name);
    octal(&mut fields.size, size.min(MAX_FIXED));
    octal(&mut fields.mode, 0o644);
    octal(&mut fields.uid, 0);
    octal(&mut fields.gid, 0);
    octal(&mut fields.mtime, 0);
}

/// The fixed header. What doesn't fit in it is in [`records`], and here as much as does.
fn header(entry: &Entry) -> Result<Header> {
    let (kind, link, device): (u8, &[u8], _) = match &entry.kind {
        EntryKind::File => (b'0', b"", None),
        EntryKind::HardLink(target) => (b'1', target, None),
        EntryKind::Symlink(text) => (b'2', text, None),
        EntryKind::CharacterDevice(device) => (b'3', b"", Some(device)),
        EntryKind::BlockDevice(device) => (b'4', b"", Some(device)),
        EntryKind::Directory => (b'5', b"", None),
        EntryKind::Fifo => (b'6', b"", None),
    };
    let mut header = Header::new_ustar();
    let fields = header_fields(&mut header)?;
    fill(fields, kind, &name(entry), entry.size);
    copy(&mut fields.linkname, link);
    octal(&mut fields.mode, entry.mode.into());
    octal(&mut fields.uid, entry.uid.min(MAX_FIXED_ID).into());
    octal(&mut fields.gid, entry.gid.min(MAX_FIXED_ID).into());
    octal(&mut fields.mtime, u64::try_from(entry.mtime.seconds).unwrap_or(0).min(MAX_FIXED));
    if let Some(device) = device {
        octal(&mut fields.dev_major, device.major.into());
        octal(&mut fields.dev_minor, device.minor.into());
    }
    Ok(header)
}

/// The name in the archive: directories end in a slash.
fn name(entry: &Entry) -> Vec<u8> {
    let mut name = entry.path.clone();
    if entry.kind == EntryKind::Directory {
        name.push(b'/');
    }
    name
}

/// The extended header; empty when the fixed one says it all.
fn records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let name = name(entry);
    if name.len() > 100 {
        record(&mut records, "path", &name);
    }
    if let EntryKind::HardLink(link) | EntryKind::Symlink(link) = &entry.kind
        && link.len() > 100
    {
        record(&mut records, "linkpath", link);
    }
    if entry.size > MAX_FIXED {
        record(&mut records, "size", entry.size.to_string().as_bytes());
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if id > MAX_FIXED_ID {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    let fits = u64::try_from(entry.mtime.seconds).is_ok_and(|seconds| seconds <= MAX_FIXED);
    if !fits || entry.mtime.nanoseconds != 0 {
        record(&mut records, "mtime", decimal(entry.mtime).as_bytes());
    }
    for xattr in &entry.xattrs {
        record(&mut records, &format!("SCHILY.xattr.{}", xattr.name), &xattr.value);
    }
    records
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let digits = |number: usize| number.to_string().len();
    let mut length = rest + digits(rest);
    length = rest + digits(length);
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Seconds with a fraction. Before 1970 both count down from zero.
fn decimal(time: Time) -> String {
    match time.nanoseconds {
        0 => time.seconds.to_string(),
        nanoseconds if time.seconds >= 0 => format!("{}.{nanoseconds:09}", time.seconds),
        nanoseconds => format!("-{}.{:09}", -(time.seconds + 1), 1_000_000_000 - nanoseconds),
    }
}

/// Copies as much as fits.
fn copy(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Octal digits that fill the field up to a NUL. The caller sees to it that they fit.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    copy(field, format!("{value:0width$o}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in 0..2000 {
            let mut records = Vec::new();
            record(&mut records, "key", &vec![b'v'; length]);
            let text = std::str::from_utf8(&records).expect("text");
            let (said, _) = text.split_once(' ').expect("a length");
            assert_eq!(said, records.len().to_string());
        }
    }

    #[test]
    fn times_before_1970_read_back() {
        assert_eq!(decimal(Time { seconds: -2, nanoseconds: 500_000_000 }), "-1.500000000");
        assert_eq!(decimal(Time { seconds: -1, nanoseconds: 1 }), "-0.999999999");
        assert_eq!(decimal(Time { seconds: -7, nanoseconds: 0 }), "-7");
    }
}
