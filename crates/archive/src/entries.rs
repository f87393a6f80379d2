//! The members of an archive, one after the other.
//!
//! Crate `tar` gives the layout of a header; the way from one to the next is walked here, because
//! a layer must mean the same to every reader or be refused:
//!
//! - extended headers are bounded, may hold any byte in an attribute, and their size overrides the
//!   fixed header's;
//! - members that have no data by their type but a size by their header are refused, since readers
//!   disagree on whether data follows;
//! - holes are kept as holes, in all of GNU tar's four sparse forms.

use std::io::Read;

use berth_types::{Digest, Error, Result};
use tar::Header;

use crate::apply::Limits;
use crate::entry::{Device, Entry, EntryKind, Time, normalise, refused};
use crate::header::{self, number, text, unsigned};
use crate::pax::Overrides;
use crate::source::{BLOCK, Source, truncated};
use crate::sparse::{self, Map};

/// The longest extended header or long name, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;

/// How long all of those before one member may be together.
const MAX_EXTENSIONS: u64 = 8 << 20;

/// An archive being read.
pub struct Entries<R> {
    source: Source<R>,
    limits: Limits,
    count: u64,
    global: Overrides,
    /// Where the data of the current member goes.
    map: Map,
    /// Bytes left of the current member's data, without its padding.
    unread: u64,
    padding: u64,
    /// Bytes of extended headers read for the next member.
    extensions: u64,
}

impl<R: Read> Entries<R> {
    /// Reads the uncompressed archive `reader`.
    pub fn new(reader: R, limits: Limits) -> Self {
        Self {
            source: Source::new(reader, limits.bytes),
            limits,
            count: 0,
            global: Overrides::default(),
            map: Map::solid(0),
            unread: 0,
            padding: 0,
            extensions: 0,
        }
    }

    /// Notes what is read of the archive besides the data of its members, for
    /// [`take_passed`](Self::take_passed).
    #[must_use]
    pub fn noting(mut self) -> Self {
        self.source.note_passed();
        self
    }

    /// What was noted since the last call: headers, padding, and data that was skipped, in the
    /// order of the archive. Taken after each member it is never much.
    pub fn take_passed(&mut self) -> Vec<u8> {
        self.source.take_passed()
    }

    /// The next member; `None` at the end of the archive. Data that was not read is skipped.
    ///
    /// # Errors
    /// - InvalidArgument: the archive is malformed or hostile;
    /// - DataLoss: it is cut short;
    /// - ResourceExhausted: it passes a limit;
    /// - those of the reader.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.source.skip(self.unread + self.padding)?;
        self.unread = 0;
        self.padding = 0;
        self.extensions = 0;
        let mut names = Names { overrides: self.global.clone(), ..Names::default() };
        let mut described = false;
        while let Some(header) = self.header()? {
            match header.as_old().linkflag[0] {
                b'x' => names.overrides.merge(&self.extension(&header)?)?,
                b'g' => {
                    let records = self.extension(&header)?;
                    self.set_global(&records)?;
                    names.overrides.merge(&records)?;
                }
                b'L' => names.path = Some(self.extension(&header)?),
                b'K' => names.link = Some(self.extension(&header)?),
                b'V' => {
                    self.extension(&header)?;
                }
                _ => return self.entry(&header, names).map(Some),
            }
            described = true;
        }
        match described && names.describes_something() {
            true => Err(truncated()),
            false => Ok(None),
        }
    }

    /// Hands the data of the current member to `write`, with offsets in the file; holes are
    /// passed over.
    ///
    /// # Errors
    /// Those of `write` and of the reader.
    pub fn write_data(&mut self, mut write: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        for extent in &self.map.extents {
            let mut done = 0;
            while done < extent.length {
                let chunk = self.source.chunk(extent.length - done)?;
                if chunk.is_empty() {
                    return Err(truncated());
                }
                write(extent.offset + done, chunk)?;
                let count = chunk.len();
                self.source.consume(count);
                self.unread -= count as u64;
                done += count as u64;
            }
        }
        Ok(())
    }

    /// Whether the data of the current member ends before the file does.
    pub fn ends_in_hole(&self) -> bool {
        self.map.extents.last().map_or(0, |last| last.offset + last.length) < self.map.length
    }

    /// How many bytes of the current member's file no data is stored for.
    pub fn hole_bytes(&self) -> u64 {
        self.map.length - self.map.extents.iter().map(|extent| extent.length).sum::<u64>()
    }

    /// How many members were read.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Reads what follows the end of the archive; the digest and the length of the whole stream.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn finish(self) -> Result<(Digest, u64)> {
        self.finish_with(|_| Ok(()))
    }

    /// The same, and hands what follows to `rest`.
    ///
    /// # Errors
    /// Those of `rest` and of the reader.
    pub fn finish_with(self, rest: impl FnMut(&[u8]) -> Result<()>) -> Result<(Digest, u64)> {
        self.source.finish(rest)
    }

    fn header(&mut self) -> Result<Option<Header>> {
        match self.source.block()? {
            Some(block) if block != [0; BLOCK] => header::parse(&block).map(Some),
            _ => Ok(None),
        }
    }

    /// The data of a member that only describes others.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = unsigned(&header.as_old().size, "size")?;
        if size > MAX_EXTENSION {
            return Err(Error::resource_exhausted(format!(
                "the layer's archive has an extended header of {size} bytes, \
                 the most is {MAX_EXTENSION}"
            )));
        }
        self.extensions += size + BLOCK as u64;
        if self.extensions > MAX_EXTENSIONS {
            return Err(Error::resource_exhausted(format!(
                "the layer's archive has extended headers of more than {MAX_EXTENSIONS} bytes for \
                 one member"
            )));
        }
        // The limit makes the conversion exact.
        let bytes = self.source.bytes(size as usize)?;
        self.source.skip(padding(size))?;
        Ok(bytes)
    }

    /// Takes in a global extended header. What only makes sense for one member is refused.
    fn set_global(&mut self, records: &[u8]) -> Result<()> {
        self.global.merge(records)?;
        let global = &self.global;
        if global.path.is_some() || global.link.is_some() || global.size.is_some() {
            return Err(Error::invalid_argument(
                "the layer's archive has one name or size for all its members",
            ));
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header, names: Names) -> Result<Entry> {
        self.count += 1;
        if self.count > self.limits.entries {
            return Err(Error::resource_exhausted(format!(
                "the layer has more than {} files, the limit",
                self.limits.entries
            )));
        }
        let name = names.path(header);
        let path = normalise(&name)?;
        let kind = kind(header, &name, &names)?;
        let fixed = header.as_old();
        let overrides = &names.overrides;
        let mtime = Time { seconds: number(&fixed.mtime, "time")?, nanoseconds: 0 };
        let entry = Entry {
            mode: (number(&fixed.mode, "mode")? & 0o7777) as u32,
            uid: id(&path, overrides.uid, &fixed.uid)?,
            gid: id(&path, overrides.gid, &fixed.gid)?,
            mtime: overrides.mtime.unwrap_or(mtime),
            xattrs: names.overrides.xattrs.clone(),
            size: self.locate_data(header, &names, &kind, &path)?,
            path,
            kind,
        };
        Ok(entry)
    }

    /// Finds out where the member's data is, and how long the file is.
    fn locate_data(
        &mut self,
        header: &Header,
        names: &Names,
        kind: &EntryKind,
        path: &[u8],
    ) -> Result<u64> {
        let fixed = unsigned(&header.as_old().size, "size")?;
        let stored = match kind {
            // Some writers note the size of the file that is linked to; none writes data.
            EntryKind::HardLink(_) => 0,
            _ => names.overrides.size.unwrap_or(fixed),
        };
        if *kind != EntryKind::File && stored != 0 {
            return Err(refused(path, "only a regular file can have data"));
        }
        if stored > self.limits.bytes {
            return Err(self.too_large(path, stored));
        }
        self.padding = padding(stored);
        self.unread = stored;
        self.map = Map::solid(stored);
        if header.as_old().linkflag[0] == b'S' {
            self.map = sparse::gnu(&mut self.source, header, stored)?;
        } else if *kind == EntryKind::File
            && let Some((map, used)) = names.overrides.sparse.map(&mut self.source, stored)?
        {
            self.map = map;
            self.unread -= used;
        }
        // A hole takes no space here, but does wherever the file is copied to.
        if self.map.length > self.limits.bytes {
            return Err(self.too_large(path, self.map.length));
        }
        Ok(self.map.length)
    }

    fn too_large(&self, path: &[u8], size: u64) -> Error {
        Error::resource_exhausted(format!(
            "the layer's member {} has {size} bytes, the limit for the whole layer is {}",
            crate::entry::shown(path),
            self.limits.bytes
        ))
    }
}

/// What the members before the current one say of it.
#[derive(Default)]
struct Names {
    overrides: Overrides,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Names {
    fn path(&self, header: &Header) -> Vec<u8> {
        let long = self.path.as_deref().map(text);
        let sparse = self.overrides.sparse.name.as_deref();
        let named = long.or(sparse).or(self.overrides.path.as_deref());
        named.map_or_else(|| header::path(header), <[u8]>::to_vec)
    }

    fn link(&self, header: &Header) -> Vec<u8> {
        let named = self.link.as_deref().map(text).or(self.overrides.link.as_deref());
        named.unwrap_or_else(|| text(&header.as_old().linkname)).to_vec()
    }

    /// Whether a member must follow. A global header alone may end an archive.
    fn describes_something(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.overrides.path.is_some()
    }
}

fn kind(header: &Header, name: &[u8], names: &Names) -> Result<EntryKind> {
    Ok(match header.as_old().linkflag[0] {
        // Before POSIX, a directory was a file whose name ends in a slash.
        b'0' | 0 if name.ends_with(b"/") => EntryKind::Directory,
        b'0' | 0 | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink(normalise(&names.link(header))?),
        b'2' => EntryKind::Symlink(symlink_text(name, names.link(header))?),
        b'3' => EntryKind::CharacterDevice(device(header, name)?),
        b'4' => EntryKind::BlockDevice(device(header, name)?),
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => return Err(refused(name, &format!("its type {other:#x} is unknown"))),
    })
}

fn symlink_text(name: &[u8], text: Vec<u8>) -> Result<Vec<u8>> {
    if text.is_empty() || text.contains(&0) {
        return Err(refused(name, "its symbolic link is empty or holds a NUL byte"));
    }
    Ok(text)
}

fn device(header: &Header, name: &[u8]) -> Result<Device> {
    let ustar = header.as_bytes();
    let major = unsigned(&ustar[329..337], "device number")?;
    let minor = unsigned(&ustar[337..345], "device number")?;
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(refused(name, &format!("there is no device number {major}:{minor}")));
    }
    Ok(Device { major: major as u32, minor: minor as u32 })
}

/// A user or group id. `u32::MAX` means "leave it" to the kernel.
fn id(path: &[u8], overridden: Option<u64>, field: &[u8]) -> Result<u32> {
    let id = match overridden {
        Some(id) => id,
        None => unsigned(field, "owner")?,
    };
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(refused(path, &format!("no user or group has the id {id}"))),
    }
}

/// Bytes from the end of `size` bytes of data to the next block.
fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}
